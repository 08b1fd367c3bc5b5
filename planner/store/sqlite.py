"""The store in one SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2

from planner.store import messages, overview
from planner.store.ended import EndedGenerations
from planner.store.events import EventLog
from planner.store.queue import Queue
from planner.store.schema import connect
from planner.store.transactions import transaction
from planner.store.values import (
    PRIORITY_SECONDS,
    Ending,
    Filter,
    Lease,
    Needs,
    NewGeneration,
    Overview,
    StaleLeaseError,
    State,
    StoredArtifact,
    Waiting,
)

_LEASES = (
    "SELECT l.*, g.requirement, g.plan_id, g.steps_done, g.step_count "
    "FROM leases l JOIN generations g USING (generation)"
)


class SqliteStore:
    """One connection, to be used from one thread.

    ``retain_seconds``: how long after its end a generation says that it is kept; 0: for ever.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, retain_seconds: float = 0.0
    ) -> None:
        self._db = connect(path)
        self._clock = clock
        self._retain_seconds = retain_seconds
        self._events = EventLog(self._db, clock)
        self._queue = Queue(self._db)
        self._ended = EndedGenerations(self._db)

    def close(self) -> None:
        self._db.close()

    def create(self, new: NewGeneration) -> None:
        with self._transaction():
            now = self._create_time()
            needs = new.needs
            self._db.execute(
                "INSERT OR IGNORE INTO requirements (requirement, model, body) VALUES (?, ?, ?)",
                (needs.key, needs.model, needs.program.SerializeToString(deterministic=True)),
            )
            values = {
                "generation": new.generation,
                "owner": new.owner,
                "request_id": new.request_id or None,
                "request_digest": new.request_digest,
                "requirement": needs.key,
                "model": needs.model,
                "state": State.QUEUED.value,
                "priority": new.priority,
                "turn": now - PRIORITY_SECONDS * new.priority,
                "plan_id": new.plan.plan_id,
                "step_count": new.plan.program.num_inference_steps,
                "create_time": now,
                "queue_time": now,
                "queue_deadline": new.queue_deadline,
                "deadline": new.deadline,
                "spec": messages.without_pictures(new.spec).SerializeToString(),
                "plan": new.plan.SerializeToString(),
            }
            columns, places = ", ".join(values), ", ".join("?" * len(values))
            self._db.execute(
                f"INSERT INTO generations ({columns}) VALUES ({places})", tuple(values.values())
            )
            if new.spec.images:
                images = generation_pb2.GenerationSpec(images=new.spec.images)
                self._db.execute(
                    "INSERT INTO images (generation, body) VALUES (?, ?)",
                    (new.generation, images.SerializeToString()),
                )
            planned = generation_pb2.Planned(plan=new.plan, diagnostics=new.diagnostics)
            self._events.append(new.generation, generation_pb2.GenerationEvent(planned=planned))
            self._append_queued(new.generation, "")

    def request(self, owner: str, request_id: str) -> tuple[str, bytes] | None:
        row = self._db.execute(
            "SELECT generation, request_digest FROM generations WHERE owner = ? AND request_id = ?",
            (owner, request_id),
        ).fetchone()
        return None if row is None else (row["generation"], row["request_digest"])

    def generation(self, generation: str) -> generation_pb2.Generation | None:
        row = self._db.execute(
            "SELECT * FROM generations WHERE generation = ?", (generation,)
        ).fetchone()
        if row is None:
            return None
        artifacts: list[bytes] = []
        if row["state"] == State.SUCCEEDED.value:
            artifacts = [
                found["body"]
                for found in self._db.execute(
                    "SELECT body FROM artifacts WHERE generation = ? AND epoch = ? ORDER BY name",
                    (generation, row["attempt"]),
                )
            ]
        return messages.generation(row, artifacts, self._retain_seconds)

    def owner(self, generation: str) -> str | None:
        row = self._row(generation, "owner")
        return None if row is None else str(row["owner"])

    def progress(self, generation: str) -> tuple[State, int] | None:
        row = self._row(generation, "state, last_sequence")
        return None if row is None else (State(row["state"]), row["last_sequence"])

    def images(self, generation: str) -> Sequence[generation_pb2.InputImage]:
        row = self._db.execute(
            "SELECT body FROM images WHERE generation = ?", (generation,)
        ).fetchone()
        return [] if row is None else generation_pb2.GenerationSpec.FromString(row["body"]).images

    def page(
        self, before: int | None, limit: int, wanted: Filter
    ) -> Iterator[tuple[int, generation_pb2.Generation]]:
        conditions: dict[str, float | str | None] = {
            "number < ?": before,
            "owner = ?": wanted.owner,
            "model = ?": wanted.model or None,
            # Times of creation never fall, so that this is one look into their index.
            "number >= (SELECT coalesce(min(number), 9e18) FROM (SELECT number FROM generations "
            "WHERE create_time >= ? ORDER BY create_time, number LIMIT 1))": wanted.created_since,
        }
        given = {text: value for text, value in conditions.items() if value is not None}
        states = ", ".join(str(state.value) for state in wanted.states)
        where = [*given, *([f"state IN ({states})"] if states else [])]
        rows = self._db.execute(
            f"SELECT {messages.SUMMARY_COLUMNS} FROM generations "
            f"WHERE {' AND '.join(where) or 'TRUE'} ORDER BY number DESC LIMIT ?",
            (*given.values(), limit),
        )
        return ((row["number"], messages.summary(row, self._retain_seconds)) for row in rows)

    def events(
        self, generation: str, after: int, limit: int
    ) -> list[generation_pb2.GenerationEvent]:
        return self._events.after(generation, after, limit)

    def queue_length(self, owner: str | None = None) -> int:
        return self._queue.length(owner)

    def needs(self, key: str) -> Needs:
        row = self._db.execute(
            "SELECT model, body FROM requirements WHERE requirement = ?", (key,)
        ).fetchone()
        if row is None:
            raise KeyError(key)
        return Needs(key, row["model"], plan_pb2.Program.FromString(row["body"]))

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
            self._db.execute(
                "INSERT INTO leases (generation, epoch, executor, announced, expires_at) "
                "VALUES (?, ?, ?, ?, ?)",
                (generation, epoch, executor.name, executor.SerializeToString(), expires_at),
            )
            started = generation_pb2.Started(executor=executor.name, attempt=epoch)
            self._events.append(generation, generation_pb2.GenerationEvent(started=started))
        return self.lease(generation)

    def lease(self, generation: str) -> Lease | None:
        row = self._db.execute(f"{_LEASES} WHERE generation = ?", (generation,)).fetchone()
        return None if row is None else messages.lease(row)

    def leases_of(self, executor: str) -> list[Lease]:
        rows = self._db.execute(f"{_LEASES} WHERE l.executor = ?", (executor,))
        return [messages.lease(row) for row in rows]

    def expired_leases(self, now: float) -> list[Lease]:
        rows = self._db.execute(f"{_LEASES} WHERE expires_at <= ?", (now,))
        return [messages.lease(row) for row in rows]

    def extend(self, lease: Lease, expires_at: float) -> None:
        with self._transaction():
            self._check(lease)
            self._extend("generation = ?", (lease.generation,), expires_at)

    def extend_all(self, expires_at: float) -> None:
        with self._transaction():
            self._extend("TRUE", (), expires_at)

    def add_steps(
        self, lease: Lease, steps: Sequence[generation_pb2.StepOutcome], expires_at: float
    ) -> None:
        with self._transaction():
            self._check(lease)
            for step in steps:
                event = generation_pb2.GenerationEvent(step=step)
                self._events.append(lease.generation, event, step=step.step)
            self._db.execute(
                "UPDATE generations SET steps_done = steps_done + ? WHERE generation = ?",
                (len(steps), lease.generation),
            )
            self._extend("generation = ?", (lease.generation,), expires_at)

    def outcomes(self, lease: Lease) -> list[generation_pb2.StepOutcome]:
        return self._events.outcomes(lease.generation, lease.epoch)

    def request_stop(self, generation: str, code: str, reason: str, expires_at: float) -> bool:
        with self._transaction():
            changed = self._db.execute(
                "UPDATE leases SET cancel_code = coalesce(cancel_code, ?), "
                "cancel_reason = coalesce(cancel_reason, ?), expires_at = min(expires_at, ?) "
                "WHERE generation = ?",
                (code, reason, expires_at, generation),
            )
        return changed.rowcount == 1

    def requeue(self, lease: Lease, reason: str, queue_deadline: float) -> None:
        with self._transaction():
            self._check(lease)
            for table in ("leases", "artifacts"):
                self._db.execute(f"DELETE FROM {table} WHERE generation = ?", (lease.generation,))
            self._db.execute(
                "UPDATE generations SET state = ?, executor = '', steps_done = 0, "
                "queue_time = ?, queue_deadline = ? WHERE generation = ?",
                (State.QUEUED.value, self._clock(), queue_deadline, lease.generation),
            )
            self._append_queued(lease.generation, reason)

    def end_queued(self, generation: str, ending: Ending) -> bool:
        with self._transaction():
            row = self._row(generation, "state")
            if row is None or row["state"] != State.QUEUED.value:
                return False
            self._end(generation, ending)
        return True

    def end_leased(self, lease: Lease, ending: Ending) -> None:
        with self._transaction():
            self._check(lease)
            self._db.execute("DELETE FROM leases WHERE generation = ?", (lease.generation,))
            self._end(lease.generation, ending)

    def overdue(self, now: float) -> list[str]:
        return self._queue.overdue(now)

    def expired(self, now: float) -> list[str]:
        return self._queue.expired(now)

    def next_deadline(self) -> float | None:
        return self._queue.next_deadline()

    def add_artifact(self, lease: Lease, artifact: generation_pb2.Artifact) -> None:
        with self._transaction():
            self._check(lease)
            self._db.execute(
                "INSERT OR REPLACE INTO artifacts (generation, epoch, name, size_bytes, body) "
                "VALUES (?, ?, ?, ?, ?)",
                (
                    lease.generation,
                    lease.epoch,
                    artifact.name,
                    artifact.size_bytes,
                    artifact.SerializeToString(),
                ),
            )

    def artifact(self, generation: str, name: str) -> StoredArtifact | None:
        row = self._db.execute(
            "SELECT a.epoch, a.body FROM artifacts a JOIN generations g USING (generation) "
            "WHERE generation = ? AND name = ? AND g.state = ? AND a.epoch = g.attempt",
            (generation, name, State.SUCCEEDED.value),
        ).fetchone()
        if row is None:
            return None
        return StoredArtifact(row["epoch"], generation_pb2.Artifact.FromString(row["body"]))

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
        return self._ended.give_back(pages)

    def overview(self, at_most: int, runs_at_most: int) -> Overview:
        return overview.read(self._db, self._clock(), at_most, runs_at_most)

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._db)

    def _create_time(self) -> float:
        """Now, but never before the creation of what is older, whatever was done to the clock."""
        row = self._db.execute(
            "SELECT create_time FROM generations ORDER BY number DESC LIMIT 1"
        ).fetchone()
        now = self._clock()
        return now if row is None else max(now, row["create_time"])

    def _row(self, generation: str, columns: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            f"SELECT {columns} FROM generations WHERE generation = ?", (generation,)
        ).fetchone()
        return row

    def _check(self, lease: Lease) -> None:
        row = self._db.execute(
            "SELECT epoch FROM leases WHERE generation = ?", (lease.generation,)
        ).fetchone()
        if row is None or row["epoch"] != lease.epoch:
            raise StaleLeaseError(f"generations/{lease.generation} epoch {lease.epoch}")

    def _extend(self, where: str, parameters: tuple[str, ...], expires_at: float) -> None:
        self._db.execute(
            "UPDATE leases SET expires_at = CASE WHEN cancel_reason IS NULL THEN ? "
            f"ELSE min(expires_at, ?) END WHERE {where}",
            (expires_at, expires_at, *parameters),
        )

    def _end(self, generation: str, ending: Ending) -> None:
        self._db.execute(
            "UPDATE generations SET state = ?, end_time = ?, failure = ?, record = ? "
            "WHERE generation = ?",
            (
                ending.state.value,
                self._clock(),
                None if ending.failure is None else ending.failure.SerializeToString(),
                None if ending.record is None else ending.record.SerializeToString(),
                generation,
            ),
        )
        self._db.execute("DELETE FROM images WHERE generation = ?", (generation,))
        self._db.execute(
            "DELETE FROM artifacts WHERE generation = ? AND NOT EXISTS (SELECT 1 FROM generations "
            "g WHERE g.generation = artifacts.generation AND state = ? AND attempt = epoch)",
            (generation, State.SUCCEEDED.value),
        )
        finished = self.generation(generation)
        assert finished is not None
        finished.ClearField("owner")
        self._events.append(generation, generation_pb2.GenerationEvent(finished=finished))

    def _append_queued(self, generation: str, reason: str) -> None:
        position = self._queue.position(generation)
        queued = generation_pb2.Queued(position=position, reason=reason)
        self._events.append(generation, generation_pb2.GenerationEvent(queued=queued))
