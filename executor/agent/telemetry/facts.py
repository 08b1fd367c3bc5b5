"""What an executor does, told to whoever counts or traces it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ditplan.dispatch.v1.dispatch_pb2 import Completion

from executor.engine.program import StepOutcome


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """At the start or anew; ``quantization`` is "none" where there is none."""

    seconds: float
    model: str
    device: str
    dtype: str
    quantization: str


@dataclass(frozen=True, slots=True)
class PlannerSeen:
    """Whether the planner answers now."""

    answers: bool


@dataclass(frozen=True, slots=True)
class RunBegan:
    """``traceparent``: the span that the planner has for the lease; empty: none."""

    generation: str
    epoch: int
    plan_id: str
    step_count: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class StepDone:
    outcome: StepOutcome


@dataclass(frozen=True, slots=True)
class RunEnded:
    """From lease to delivery in so many seconds; ABORTED where the lease went to another.

    ``completion`` exactly where the code is OK. It may not have begun.
    """

    code: str
    message: str
    seconds: float
    completion: Completion | None


Fact = ModelLoaded | PlannerSeen | RunBegan | StepDone | RunEnded


class Facts:
    """Tells every listener at once, in the thread of whoever tells; they must not wait."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Fact], None]] = []

    def listen(self, listener: Callable[[Fact], None]) -> None:
        self._listeners.append(listener)

    def tell(self, fact: Fact) -> None:
        for listener in self._listeners:
            listener(fact)
