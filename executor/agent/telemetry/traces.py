"""The span of a run, below that of its lease, with an event for every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ditplan.common.tracing import Tracing, fail

from executor.agent.telemetry import facts
from executor.engine.program import StepOutcome

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Traces:
    """Listens to facts. OTEL_SPAN_EVENT_COUNT_LIMIT bounds the events, to the last 128 if unset."""

    def __init__(self, tracing: Tracing, executor: str) -> None:
        self._tracing = tracing
        self._executor = executor
        self._span: Span | None = None

    def hear(self, fact: facts.Fact) -> None:
        match fact:
            case facts.RunBegan():
                self._span = self._tracing.begin(
                    "run",
                    fact.traceparent,
                    executor=self._executor,
                    generation=fact.generation.removeprefix("generations/"),
                    plan_id=fact.plan_id,
                    attempt=fact.epoch,
                    steps=fact.step_count,
                )
            case facts.StepDone(outcome) if self._span is not None:
                self._span.add_event("step", _described(outcome))
            case facts.ModelLoaded() if self._span is not None:
                self._span.add_event("model_loaded", {"seconds": fact.seconds})
            case facts.RunEnded() if self._span is not None:
                if fact.completion is None:
                    fail(self._span, fact.code, fact.message)
                self._span.end()
                self._span = None

    def close(self) -> None:
        self._tracing.close()


def _described(outcome: StepOutcome) -> dict[str, str | int | float]:
    ops = [op for op in outcome.ops if op is not None]
    kinds = ",".join(op.kind.value for op in ops)
    found: dict[str, str | int | float] = {
        "step": outcome.step,
        "ops": kinds,
        "milliseconds": outcome.milliseconds,
    }
    diffs = [op.residual_diff for op in ops if op.residual_diff is not None]
    if diffs:
        found["residual_diff"] = max(diffs)
    return found
