"""The spans of a planner: a client's call, its work in the queue, its work under a lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ditplan.common.tracing import Tracing, fail

from planner.dispatch import facts
from planner.telemetry.calls import UNKNOWN, Call

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# Beyond it the spans of the oldest work end early.
_MAX_WORK = 10_000
_DISPATCH = "ditplan.dispatch."


@dataclass(slots=True)
class _Work:
    """``span`` is the open one: of its wait, or of its lease."""

    parent: str
    span: Span


class Traces:
    """Listens to facts and stands around calls.

    Work that an earlier planner accepted goes on in the trace of the call that asked for it.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._work: dict[str, _Work] = {}
        self._call: ContextVar[str] = ContextVar("traceparent", default="")

    @contextmanager
    def call(self, call: Call) -> Iterator[None]:
        """The span of a client's call; those of executors are part of their runs."""
        if call.service == UNKNOWN or call.service.startswith(_DISPATCH):
            yield
            return
        from opentelemetry.trace import SpanKind

        name = f"{call.service}/{call.method}"
        span = self._tracing.begin(name, call.traceparent, SpanKind.SERVER)
        token = self._call.set(self._tracing.traceparent(span))
        try:
            yield
        finally:
            self._call.reset(token)
            if call.code != "OK":
                fail(span, call.code, "")
            span.end()

    def calls_traceparent(self) -> str:
        """Of the client's call that is being answered."""
        return self._call.get()

    def traceparent(self, generation: str) -> str:
        """Of the lease that an executor is about to run."""
        work = self._work.get(generation)
        return "" if work is None else self._tracing.traceparent(work.span)

    def hear(self, fact: facts.Fact) -> None:
        match fact:
            case facts.Created(generation, plan_id):
                self._begin(generation, self._call.get(), "queued", plan_id=plan_id)
            case facts.Granted(lease):
                self._begin(
                    lease.generation,
                    self._end(lease.generation) or lease.traceparent,
                    "leased",
                    plan_id=lease.plan_id,
                    executor=lease.executor.name,
                    attempt=lease.epoch,
                    reload=fact.reload,
                )
            case facts.Requeued(lease, reason):
                parent = self._end(lease.generation, "UNAVAILABLE", reason) or lease.traceparent
                self._begin(lease.generation, parent, "queued", plan_id=lease.plan_id)
            case facts.Ended(generation, ending):
                failure = ending.failure
                if failure is None:
                    self._end(generation)
                else:
                    self._end(generation, failure.code, failure.message)

    def close(self) -> None:
        for generation in list(self._work):
            self._end(generation)
        self._tracing.close()

    def _begin(self, generation: str, parent: str, name: str, **attributes: str | int) -> None:
        if len(self._work) >= _MAX_WORK:
            self._end(next(iter(self._work)))
        span = self._tracing.begin(name, parent, None, generation=generation, **attributes)
        self._work[generation] = _Work(parent, span)

    def _end(self, generation: str, code: str = "", message: str = "") -> str:
        """Ends the open span of work; the parent of what follows it."""
        work = self._work.pop(generation, None)
        if work is None:
            return ""
        if code:
            fail(work.span, code, message)
        work.span.end()
        return work.parent
