"""What happens to work, told to whoever counts or traces it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ditplan.v1 import generation_pb2, plan_pb2

from planner.store.values import Ending, Lease


@dataclass(frozen=True, slots=True)
class Compiled:
    """A config or program was turned into a plan, or refused, in so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Created:
    generation: str
    plan_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Granted:
    """``reload``: the executor loads its model anew for it."""

    lease: Lease
    reload: bool


@dataclass(frozen=True, slots=True)
class Attached:
    """The executor of a lease opened a stream, its first or another."""

    lease: Lease
    generation: generation_pb2.Generation


@dataclass(frozen=True, slots=True)
class Stepped:
    """Steps that were reported for the first time."""

    lease: Lease
    program: plan_pb2.Program
    steps: Sequence[generation_pb2.StepOutcome]


@dataclass(frozen=True, slots=True)
class Lost:
    """``cause``: "expired", "stuck" (heartbeats without steps) or "restarted" (it asks anew)."""

    lease: Lease
    cause: str


@dataclass(frozen=True, slots=True)
class Requeued:
    lease: Lease
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """``lease`` is None where it ended in the queue."""

    generation: str
    ending: Ending
    lease: Lease | None


Fact = Compiled | Created | Granted | Attached | Stepped | Lost | Requeued | Ended


class Facts:
    """Tells every listener at once, in the order in which they came; they must not wait."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Fact], None]] = []

    def listen(self, listener: Callable[[Fact], None]) -> None:
        self._listeners.append(listener)

    def tell(self, fact: Fact) -> None:
        for listener in self._listeners:
            listener(fact)
