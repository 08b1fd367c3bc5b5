"""OpenTelemetry where it is asked for, the same for both services.

Spans go to where the standard OTEL_* variables say. Nothing of OpenTelemetry is imported unless
they ask for it. Parents are W3C traceparents, which cross processes as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanKind

_ASKS = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
_TRACEPARENT = "traceparent"
_CLOSE_SECONDS = 5.0


class NoTracesError(Exception):
    """Traces are asked for and cannot be had; the message says why."""


def tracing(service: str, environ: Mapping[str, str]) -> Tracing | None:
    """What the variables ask for; None where they ask for no traces.

    Raises:
        NoTracesError: the extra is not installed, or a variable has a value that is not known.
    """
    if not any(environ.get(name) for name in _ASKS):
        return None
    exporter = environ.get(_ASKS[0]) or "otlp"
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if exporter != "otlp":
        raise NoTracesError(f"OTEL_TRACES_EXPORTER is {exporter!r}, not otlp or none")
    name = next((name for name in _PROTOCOLS if environ.get(name)), _PROTOCOLS[-1])
    protocol = environ.get(name) or "http/protobuf"
    if protocol not in _EXPORTERS:
        raise NoTracesError(f"{name} is {protocol!r}, not one of {', '.join(_EXPORTERS)}")
    try:
        from importlib import import_module

        made: SpanExporter = import_module(_EXPORTERS[protocol]).OTLPSpanExporter()
        return Tracing.to(made, service, environ)
    except ImportError as error:
        text = f"OTEL_* variables ask for traces: pip install 'ditplan[otel]' ({error})"
        raise NoTracesError(text) from None


class Tracing:
    """Begins spans, whose ends are exported in the background."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("ditplan")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, exporter: SpanExporter, service: str, environ: Mapping[str, str]) -> Tracing:
        """Spans of a service of that name, unless OTEL_SERVICE_NAME gives it another."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        # Ended by `close`, which does not wait for a collector that does not answer.
        provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def begin(
        self, name: str, parent: str, kind: SpanKind | None = None, **attributes: Any
    ) -> Span:
        """A span below ``parent``; a trace of its own where that is no traceparent."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract({_TRACEPARENT: parent}, Context())
        kind = kind or SpanKind.INTERNAL
        return self._tracer.start_span(name, context, kind, _dotted(attributes))

    def traceparent(self, span: Span) -> str:
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return carrier.get(_TRACEPARENT, "")

    def close(self) -> None:
        """Sends what has ended, for a bounded time."""
        flush = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        flush.start()
        flush.join(_CLOSE_SECONDS)


def fail(span: Span, code: str, message: str) -> None:
    """Marks a span as failed."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("ditplan.code", code)
    span.set_status(Status(StatusCode.ERROR, message))


def _dotted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"ditplan.{name}": value for name, value in attributes.items()}
