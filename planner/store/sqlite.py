"""The store in one SQLite file."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ditplan.v1 import executor_pb2, generation_pb2

from planner.store import loads, overview
from planner.store.ended import EndedGenerations
from planner.store.events import EventLog
from planner.store.generations import Generations
from planner.store.leases import Leases
from planner.store.queue import Queue
from planner.store.schema import connect
from planner.store.transactions import transaction, writing
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

# Names of models that are kept.
_MAX_MODELS = 1000


class SqliteStore:
    """One connection, to be used from one thread.

    ``retain_seconds``: how long after its end a generation says that it is kept; 0: for ever.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, retain_seconds: float = 0.0
    ) -> None:
        self._db = connect(path)
        self._clock = clock
        self._generations = Generations(self._db, retain_seconds)
        self._leases = Leases(self._db)
        self._events = EventLog(self._db, clock)
        self._queue = Queue(self._db)
        self._ended = EndedGenerations(self._db)

    def close(self) -> None:
        self._db.close()

    def create(self, new: NewGeneration) -> None:
        with self._transaction():
            self._generations.insert(new, self._clock())
            planned = generation_pb2.Planned(plan=new.plan, diagnostics=new.diagnostics)
            self._events.append(new.generation, generation_pb2.GenerationEvent(planned=planned))
            self._append_queued(new.generation, "")

    def remember_model(self, model: str, announced: executor_pb2.Executor) -> None:
        body = executor_pb2.Executor(component_configs=announced.component_configs)
        with self._transaction():
            self._db.execute(
                "INSERT INTO models (model, seen, body) VALUES (?, ?, ?) ON CONFLICT (model) "
                "DO UPDATE SET seen = excluded.seen, body = excluded.body",
                (model, self._clock(), body.SerializeToString()),
            )
            self._db.execute(
                "DELETE FROM models WHERE model IN "
                "(SELECT model FROM models ORDER BY seen DESC LIMIT -1 OFFSET ?)",
                (_MAX_MODELS,),
            )

    def remembered_model(self, model: str) -> executor_pb2.Executor | None:
        row = self._db.execute("SELECT body FROM models WHERE model = ?", (model,)).fetchone()
        return None if row is None else executor_pb2.Executor.FromString(row["body"])

    def request(self, owner: str, request_id: str) -> tuple[str, bytes] | None:
        return self._generations.request(owner, request_id)

    def generation(self, generation: str) -> generation_pb2.Generation | None:
        return self._generations.generation(generation)

    def owner(self, generation: str) -> str | None:
        return self._generations.owner(generation)

    def progress(self, generation: str) -> tuple[State, int] | None:
        return self._generations.progress(generation)

    def images(self, generation: str) -> Sequence[generation_pb2.InputImage]:
        return self._generations.images(generation)

    def page(
        self, before: int | None, limit: int, wanted: Filter
    ) -> Iterator[tuple[int, generation_pb2.Generation]]:
        return self._generations.page(before, limit, wanted)

    def events(
        self, generation: str, after: int, limit: int
    ) -> list[generation_pb2.GenerationEvent]:
        return self._events.after(generation, after, limit)

    def queue_length(self, owner: str | None = None) -> int:
        return self._queue.length(owner)

    def needs(self, key: str) -> Needs:
        return self._generations.needs(key)

    def waiting(self) -> list[Waiting]:
        return self._queue.waiting(self._clock())

    def take(
        self, keys: Collection[str], executor: executor_pb2.Executor, expires_at: float
    ) -> Lease | None:
        with self._transaction():
            taken = self._queue.take(keys, executor.name, self._clock())
            if taken is None:
                return None
            generation, epoch = taken
            self._leases.insert(generation, epoch, executor, expires_at)
            started = generation_pb2.Started(executor=executor.name, attempt=epoch)
            self._events.append(generation, generation_pb2.GenerationEvent(started=started))
        return self.lease(generation)

    def lease(self, generation: str) -> Lease | None:
        return self._leases.of(generation)

    def leases_of(self, executor: str) -> list[Lease]:
        return self._leases.held_by(executor)

    def expired_leases(self, now: float) -> list[Lease]:
        return self._leases.expired(now)

    def extend(self, lease: Lease, expires_at: float) -> None:
        with self._transaction():
            self._leases.check(lease)
            self._leases.extend(lease, expires_at)

    def extend_all(self, expires_at: float) -> None:
        with self._transaction():
            self._leases.extend_all(expires_at)

    def add_steps(
        self, lease: Lease, steps: Sequence[generation_pb2.StepOutcome], expires_at: float
    ) -> None:
        with self._transaction():
            self._leases.check(lease)
            for step in steps:
                event = generation_pb2.GenerationEvent(step=step)
                self._events.append(lease.generation, event, step=step.step)
            self._generations.add_steps_done(lease.generation, len(steps))
            self._leases.extend(lease, expires_at)

    def outcomes(self, lease: Lease) -> list[generation_pb2.StepOutcome]:
        return self._events.outcomes(lease.generation, lease.epoch)

    def request_stop(self, generation: str, code: str, reason: str, expires_at: float) -> bool:
        with self._transaction():
            return self._leases.stop(generation, code, reason, expires_at)

    def requeue(
        self, lease: Lease, reason: str, queue_deadline: float, *, handed_back: bool = False
    ) -> None:
        with self._transaction():
            self._leases.check(lease)
            self._leases.remove(lease)
            self._generations.queue(lease.generation, self._clock(), queue_deadline, handed_back)
            self._append_queued(lease.generation, reason)

    def end_queued(self, generation: str, ending: Ending) -> bool:
        with self._transaction():
            progress = self._generations.progress(generation)
            if progress is None or progress[0] is not State.QUEUED:
                return False
            self._end(generation, ending)
        return True

    def end_leased(self, lease: Lease, ending: Ending) -> None:
        with self._transaction():
            self._leases.check(lease)
            self._leases.remove(lease)
            self._end(lease.generation, ending)

    def overdue(self, now: float) -> list[str]:
        return self._queue.overdue(now)

    def expired(self, now: float) -> list[str]:
        return self._queue.expired(now)

    def next_deadline(self) -> float | None:
        return self._queue.next_deadline()

    def add_artifact(self, lease: Lease, artifact: generation_pb2.Artifact) -> None:
        with self._transaction():
            self._leases.check(lease)
            self._generations.add_artifact(lease.generation, lease.epoch, artifact)

    def artifact(self, generation: str, name: str) -> StoredArtifact | None:
        return self._generations.artifact(generation, name)

    def ended_before(self, time: float, limit: int) -> list[str]:
        return self._ended.before(time, limit)

    def forget(self, generation: str) -> None:
        with self._transaction():
            self._ended.forget(generation)

    def compact(self, ended_before: float, limit: int) -> int:
        with self._transaction():
            return self._ended.compact(ended_before, limit)

    def used_bytes(self) -> int:
        return self._ended.used_bytes()

    def give_back(self, pages: int) -> bool:
        with writing():
            return self._ended.give_back(pages)

    def overview(self, at_most: int, runs_at_most: int) -> Overview:
        return overview.read(self._db, self._clock(), at_most, runs_at_most)

    def unfinished(self) -> list[Unfinished]:
        return loads.unfinished(self._db)

    def finished(self, generation: str) -> Finished | None:
        return loads.finished(self._db, generation)

    def last_finished(self, at_most: int) -> list[Finished]:
        return loads.last_finished(self._db, at_most)

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._db)

    def _end(self, generation: str, ending: Ending) -> None:
        self._generations.end(generation, ending, self._clock())
        finished = self.generation(generation)
        assert finished is not None
        finished.ClearField("owner")
        self._events.append(generation, generation_pb2.GenerationEvent(finished=finished))

    def _append_queued(self, generation: str, reason: str) -> None:
        position = self._queue.position(generation)
        queued = generation_pb2.Queued(position=position, reason=reason)
        self._events.append(generation, generation_pb2.GenerationEvent(queued=queued))
