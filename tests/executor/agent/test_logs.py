"""The executor's log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from executor.agent.telemetry import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers, logging.root.level
    yield
    logging.root.handlers, logging.root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _fail(prompt: str) -> None:
    raise ValueError("no such luck")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_traceback_shows_no_prompt(stream: io.StringIO) -> None:
    logs.configure(stream)
    prompt = " ".join(["a", "secret", "garden"])
    try:
        _fail(prompt)
    except ValueError:
        structlog.get_logger("executor").exception("run_failed")
    written = stream.getvalue()
    assert "no such luck" in written
    assert "_fail" in written
    assert prompt not in written


def test_off_a_terminal_every_line_is_an_object() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    structlog.get_logger("executor").bind(executor="here", epoch=2).info("run_started", steps=3)
    logging.getLogger("some.library").warning("mind the %s", "gap")
    logging.getLogger("some.library").info("not worth a line")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "run_started",
        "level": "info",
        "executor": "here",
        "epoch": 2,
        "steps": 3,
    }
    assert theirs["event"] == "mind the gap"
