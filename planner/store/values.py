"""What goes into a store and comes out of it, where the contract has no message for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2, planner_pb2


class State(Enum):
    QUEUED = generation_pb2.GENERATION_STATE_QUEUED
    RUNNING = generation_pb2.GENERATION_STATE_RUNNING
    SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED
    FAILED = generation_pb2.GENERATION_STATE_FAILED
    CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED


class StaleLeaseError(Exception):
    """The lease is over: its work ended, was queued again or went to another executor."""


class StorageFullError(Exception):
    """Nothing can be written now, most likely for want of space; what was written stands."""


PRIORITY_SECONDS = 60.0
"""What one step of priority is worth: work is leased as if it had waited so much longer.

So waiting raises work, and the highest priority overtakes the lowest for a bounded time only.
"""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an executor must hold to take work. Equal needs have equal keys.

    ``model`` is a served name; of the ``program`` only what is settled before a run is there.
    """

    key: str
    model: str
    program: plan_pb2.Program


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """Work to accept.

    ``request_digest`` tells a repeated request from one that reuses its ``request_id``, which is
    the ``owner``'s own. ``deadline``: when it ends in whatever state, None: never. ``traceparent``:
    the span of the call that asked for it; empty: none.
    """

    generation: str
    request_id: str
    request_digest: bytes
    needs: Needs
    spec: generation_pb2.GenerationSpec
    plan: plan_pb2.Plan
    diagnostics: tuple[planner_pb2.Diagnostic, ...]
    queue_deadline: float
    owner: str = ""
    priority: int = 0
    deadline: float | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The next queued generation of a key.

    Work is leased in the order of ``turn``, then ``number``. ``seconds``: how long that work of the
    key has waited that has waited longest.
    """

    key: str
    number: int
    turn: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Which generations a list has. ``owner`` None: those of all; ``states`` and ``model`` empty:
    any. ``model`` is a served name.
    """

    owner: str | None = None
    states: frozenset[State] = frozenset()
    model: str = ""
    created_since: float | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """One executor's hold on one running generation; times are seconds since the epoch.

    ``requirement`` is the key of its needs. ``cancel_code`` names the status that the work ends
    with once its executor has stopped: CANCELLED or DEADLINE_EXCEEDED. ``traceparent``: the span of
    the call that asked for the work; empty: none. ``handed_back``: how often executors that were
    to end have given it back.
    """

    generation: str
    epoch: int
    executor: executor_pb2.Executor
    expires_at: float
    cancel_code: str | None
    cancel_reason: str | None
    requirement: str
    plan_id: str
    steps_done: int
    step_count: int
    traceparent: str
    handed_back: int = 0

    @property
    def attempt(self) -> int:
        """Which attempt at the work this is; what was handed back in good order was none."""
        return self.epoch - self.handed_back


@dataclass(frozen=True, slots=True)
class Ending:
    """How a generation ends; a record exactly when it SUCCEEDED, else a failure."""

    state: State
    failure: generation_pb2.Failure | None = None
    record: generation_pb2.Record | None = None

    def __post_init__(self) -> None:
        if self.state in (State.QUEUED, State.RUNNING):
            raise ValueError(f"{self.state.name} is no end")
        succeeded = self.state is State.SUCCEEDED
        if succeeded != (self.record is not None) or succeeded == (self.failure is not None):
            raise ValueError("a record exactly when SUCCEEDED, else a failure")


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact of a generation; its file is kept under the epoch that made it."""

    epoch: int
    artifact: generation_pb2.Artifact


@dataclass(frozen=True, slots=True)
class Load:
    """What is known of a run beforehand that decides how long it takes.

    ``requirement`` is the key of its needs. FLOPs as in `ditplan.v1.Cost`: of its most expensive
    step, and of the run at the fewest and at the most computed steps; 0 where they are not known.
    """

    requirement: str
    model: str
    plan_id: str
    step_count: int
    step_flops: float
    min_flops: float
    max_flops: float


@dataclass(frozen=True, slots=True)
class Unfinished:
    """So many generations that are alike: queued (``steps_done`` None), or run so far."""

    load: Load
    count: int
    steps_done: int | None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that SUCCEEDED, with what it should have cost."""

    load: Load
    cost: plan_pb2.Cost
    record: generation_pb2.Record


@dataclass(frozen=True, slots=True)
class QueuedWork:
    generation: str
    model: str
    priority: int
    waited_seconds: float


@dataclass(frozen=True, slots=True)
class RunningWork:
    """``started_at``: of its first attempt, in seconds since the epoch."""

    generation: str
    executor: str
    plan_id: str
    attempt: int
    steps_done: int
    step_count: int
    started_at: float


@dataclass(frozen=True, slots=True)
class Overview:
    """``head``: the first of the queue, in the order in which they are leased."""

    queued: int
    oldest_queued_seconds: float
    running: int
    head: tuple[QueuedWork, ...]
    runs: tuple[RunningWork, ...]
