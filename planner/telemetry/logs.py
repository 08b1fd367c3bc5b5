"""How the service logs: one event per fact, JSON unless a person watches."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor

from planner.telemetry.lossy import LossyStream


def configure_logs(stream: TextIO | None = None, level: str = "info") -> None:
    """Sends structlog's events of that level and above to a stream, stderr by default.

    So it does with the warnings of libraries. Tracebacks come without local variables, which
    would show prompts and configs.
    """
    stream = cast(TextIO, LossyStream(stream if stream is not None else sys.stderr))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if stream.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(max(logging.WARNING, number))
    logging.captureWarnings(True)
