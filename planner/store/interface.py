"""What the service asks of a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from ditplan.v1 import executor_pb2, generation_pb2

from planner.store.values import (
    Ending,
    Filter,
    Finished,
    Lease,
    Needs,
    NewGeneration,
    Overview,
    State,
    StoredArtifact,
    Unfinished,
    Waiting,
)


class Store(Protocol):
    """Every method is one short transaction: done when it returns, or not at all.

    Methods that take a lease raise StaleLeaseError where it is over. All that write raise
    StorageFullError where the disk takes nothing. Generations are named by their bare id. Times are
    seconds since the epoch.
    """

    def create(self, new: NewGeneration) -> None:
        """Accepts work: QUEUED, with events Planned and Queued."""

    def remember_model(self, model: str, announced: executor_pb2.Executor) -> None:
        """Keeps the component configs of a model that is served; of so many models, the newest."""

    def remembered_model(self, model: str) -> executor_pb2.Executor | None:
        """They alone, as they were announced last."""

    def request(self, owner: str, request_id: str) -> tuple[str, bytes] | None:
        """Generation and digest of a request of this client that was accepted."""

    def generation(self, generation: str) -> generation_pb2.Generation | None:
        """Without the data of the pictures that it starts from."""

    def owner(self, generation: str) -> str | None:
        """Who created it; None where it is not known."""

    def progress(self, generation: str) -> tuple[State, int] | None:
        """Its state, and the sequence of its last event; None where it is not known."""

    def images(self, generation: str) -> Sequence[generation_pb2.InputImage]:
        """Those pictures with their data."""

    def page(
        self, before: int | None, limit: int, wanted: Filter
    ) -> Iterator[tuple[int, generation_pb2.Generation]]:
        """Newest first, without plans and records, each with its place in the order of creation.

        They are read one by one: a caller that has enough stops.
        """

    def events(
        self, generation: str, after: int, limit: int
    ) -> list[generation_pb2.GenerationEvent]: ...

    def queue_length(self, owner: str | None = None) -> int:
        """Of all, or of one client."""

    def needs(self, key: str) -> Needs:
        """What a key stands for; KeyError where no work with it was ever accepted."""

    def waiting(self) -> list[Waiting]:
        """The next queued generation of every key that has one."""

    def take(
        self, keys: Collection[str], executor: executor_pb2.Executor, expires_at: float
    ) -> Lease | None:
        """Leases the next queued generation with one of the keys: RUNNING, event Started."""

    def lease(self, generation: str) -> Lease | None: ...

    def leases_of(self, executor: str) -> list[Lease]: ...

    def expired_leases(self, now: float) -> list[Lease]: ...

    def extend(self, lease: Lease, expires_at: float) -> None:
        """Sets when the lease expires; a lease that is being cancelled only ever expires sooner."""

    def extend_all(self, expires_at: float) -> None:
        """The same for every lease, for a planner that starts."""

    def add_steps(
        self, lease: Lease, steps: Sequence[generation_pb2.StepOutcome], expires_at: float
    ) -> None:
        """Appends the outcomes of the next steps as events and extends the lease."""

    def outcomes(self, lease: Lease) -> list[generation_pb2.StepOutcome]:
        """Every outcome stored under this lease, in order."""

    def request_stop(self, generation: str, code: str, reason: str, expires_at: float) -> bool:
        """Marks a running generation as to be stopped by then; False where none runs.

        Where it is marked already, code and reason stay.
        """

    def requeue(
        self, lease: Lease, reason: str, queue_deadline: float, *, handed_back: bool = False
    ) -> None:
        """Ends the lease and puts its work back in its old place of the queue."""

    def end_queued(self, generation: str, ending: Ending) -> bool:
        """Ends queued work; False where it is not queued."""

    def end_leased(self, lease: Lease, ending: Ending) -> None:
        """Ends running work and publishes the artifacts of this lease where it SUCCEEDED."""

    def overdue(self, now: float) -> list[str]:
        """Queued generations whose queue deadline has passed."""

    def expired(self, now: float) -> list[str]:
        """Unfinished generations whose own deadline has passed, but those being stopped."""

    def next_deadline(self) -> float | None:
        """When the next lease expires, or queued work is overdue, or any is expired."""

    def add_artifact(self, lease: Lease, artifact: generation_pb2.Artifact) -> None: ...

    def artifact(self, generation: str, name: str) -> StoredArtifact | None:
        """An artifact of a SUCCEEDED generation."""

    def ended_before(self, time: float, limit: int) -> list[str]:
        """Generations that ended by then, the oldest first."""

    def forget(self, generation: str) -> None:
        """Removes everything of an ended generation but its files."""

    def compact(self, ended_before: float, limit: int) -> int:
        """Leaves of generations that ended by then the first event and the last; how many."""

    def used_bytes(self) -> int:
        """What the database and the artifacts take."""

    def give_back(self, pages: int) -> bool:
        """Shortens the database's file a little where it can be; whether there is more to do."""

    def overview(self, at_most: int, runs_at_most: int) -> Overview:
        """How much is queued and runs, with the head of the queue and the runs."""

    def unfinished(self) -> list[Unfinished]:
        """All that is queued and all that runs."""

    def finished(self, generation: str) -> Finished | None:
        """The run of a generation; None where it has not SUCCEEDED."""

    def last_finished(self, at_most: int) -> list[Finished]:
        """Those of the generations that ended last, the newest first; failed ones count, too."""

    def close(self) -> None: ...
