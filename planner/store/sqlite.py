"""The store in one SQLite file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2

from planner.store import messages, overview
from planner.store.events import EventLog
from planner.store.schema import connect
from planner.store.values import (
    Ending,
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
# One look into the index a key, however many generations are queued.
WAITING = """
WITH RECURSIVE keys (key) AS (
  SELECT min(requirement) FROM generations WHERE state = 1
  UNION ALL
  SELECT (SELECT min(requirement) FROM generations WHERE state = 1 AND requirement > key)
  FROM keys WHERE key IS NOT NULL
)
SELECT key, number, queue_time FROM keys JOIN generations ON number =
  (SELECT min(number) FROM generations WHERE state = 1 AND requirement = key)
"""
TAKE = """
UPDATE generations
SET state = ?, attempt = attempt + 1, executor = ?, steps_done = 0,
  start_time = coalesce(start_time, ?)
WHERE number = (
  SELECT min(oldest) FROM (
    SELECT (SELECT min(number) FROM generations WHERE state = 1 AND requirement = value) AS oldest
    FROM json_each(?)))
RETURNING generation, attempt
"""


class SqliteStore:
    """One connection, to be used from one thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._db = connect(path)
        self._clock = clock
        self._events = EventLog(self._db, clock)

    def close(self) -> None:
        self._db.close()

    def create(self, new: NewGeneration) -> None:
        now = self._clock()
        with self._transaction():
            position = self.queue_length()
            needs = new.needs
            self._db.execute(
                "INSERT OR IGNORE INTO requirements (requirement, model, body) VALUES (?, ?, ?)",
                (needs.key, needs.model, needs.program.SerializeToString(deterministic=True)),
            )
            self._db.execute(
                "INSERT INTO generations (generation, request_id, request_digest, requirement, "
                "state, spec, plan, plan_id, step_count, create_time, queue_time, queue_deadline) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.generation,
                    new.request_id or None,
                    new.request_digest,
                    needs.key,
                    State.QUEUED.value,
                    messages.without_pictures(new.spec).SerializeToString(),
                    new.plan.SerializeToString(),
                    new.plan.plan_id,
                    new.plan.program.num_inference_steps,
                    now,
                    now,
                    new.queue_deadline,
                ),
            )
            if new.spec.images:
                images = generation_pb2.GenerationSpec(images=new.spec.images)
                self._db.execute(
                    "INSERT INTO images (generation, body) VALUES (?, ?)",
                    (new.generation, images.SerializeToString()),
                )
            planned = generation_pb2.Planned(plan=new.plan, diagnostics=new.diagnostics)
            self._events.append(new.generation, generation_pb2.GenerationEvent(planned=planned))
            self._append_queued(new.generation, position, "")

    def request(self, request_id: str) -> tuple[str, bytes] | None:
        row = self._db.execute(
            "SELECT generation, request_digest FROM generations WHERE request_id = ?", (request_id,)
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
        return messages.generation(row, artifacts)

    def images(self, generation: str) -> Sequence[generation_pb2.InputImage]:
        row = self._db.execute(
            "SELECT body FROM images WHERE generation = ?", (generation,)
        ).fetchone()
        return [] if row is None else generation_pb2.GenerationSpec.FromString(row["body"]).images

    def page(
        self, before: int | None, limit: int
    ) -> Iterator[tuple[int, generation_pb2.Generation]]:
        rows = self._db.execute(
            f"SELECT {messages.SUMMARY_COLUMNS} FROM generations "
            "WHERE ? IS NULL OR number < ? ORDER BY number DESC LIMIT ?",
            (before, before, limit),
        )
        return ((row["number"], messages.summary(row)) for row in rows)

    def events(
        self, generation: str, after: int, limit: int
    ) -> list[generation_pb2.GenerationEvent]:
        return self._events.after(generation, after, limit)

    def queue_length(self) -> int:
        row = self._db.execute("SELECT count(*) FROM generations WHERE state = 1").fetchone()
        return int(row[0])

    def needs(self, key: str) -> Needs:
        row = self._db.execute(
            "SELECT model, body FROM requirements WHERE requirement = ?", (key,)
        ).fetchone()
        if row is None:
            raise KeyError(key)
        return Needs(key, row["model"], plan_pb2.Program.FromString(row["body"]))

    def waiting(self) -> list[Waiting]:
        now = self._clock()
        return [
            Waiting(row["key"], row["number"], now - row["queue_time"])
            for row in self._db.execute(WAITING)
        ]

    def take(
        self, keys: Collection[str], executor: executor_pb2.Executor, expires_at: float
    ) -> Lease | None:
        with self._transaction():
            row = self._db.execute(
                TAKE,
                (State.RUNNING.value, executor.name, self._clock(), json.dumps(list(keys))),
            ).fetchone()
            if row is None:
                return None
            generation, epoch = row["generation"], row["attempt"]
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

    def request_cancel(self, generation: str, reason: str, expires_at: float) -> bool:
        changed = self._db.execute(
            "UPDATE leases SET cancel_reason = coalesce(cancel_reason, ?), "
            "expires_at = min(expires_at, ?) WHERE generation = ?",
            (reason, expires_at, generation),
        )
        return changed.rowcount == 1

    def requeue(self, lease: Lease, reason: str, queue_deadline: float) -> None:
        with self._transaction():
            self._check(lease)
            self._db.execute("DELETE FROM leases WHERE generation = ?", (lease.generation,))
            position = self._db.execute(
                "SELECT count(*) FROM generations WHERE state = 1 AND number < "
                "(SELECT number FROM generations WHERE generation = ?)",
                (lease.generation,),
            ).fetchone()[0]
            self._db.execute(
                "UPDATE generations SET state = ?, executor = '', steps_done = 0, "
                "queue_time = ?, queue_deadline = ? WHERE generation = ?",
                (State.QUEUED.value, self._clock(), queue_deadline, lease.generation),
            )
            self._append_queued(lease.generation, position, reason)

    def end_queued(self, generation: str, ending: Ending) -> bool:
        with self._transaction():
            row = self._db.execute(
                "SELECT state FROM generations WHERE generation = ?", (generation,)
            ).fetchone()
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
        rows = self._db.execute(
            "SELECT generation FROM generations WHERE state = 1 AND queue_deadline <= ?", (now,)
        )
        return [row["generation"] for row in rows]

    def next_deadline(self) -> float | None:
        row = self._db.execute(
            "SELECT min(t) FROM (SELECT min(expires_at) AS t FROM leases UNION ALL "
            "SELECT min(queue_deadline) FROM generations WHERE state = 1)"
        ).fetchone()
        return None if row[0] is None else float(row[0])

    def add_artifact(self, lease: Lease, artifact: generation_pb2.Artifact) -> None:
        with self._transaction():
            self._check(lease)
            self._db.execute(
                "INSERT OR REPLACE INTO artifacts (generation, epoch, name, body) "
                "VALUES (?, ?, ?, ?)",
                (lease.generation, lease.epoch, artifact.name, artifact.SerializeToString()),
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

    def overview(self, at_most: int, runs_at_most: int) -> Overview:
        return overview.read(self._db, self._clock(), at_most, runs_at_most)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

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
        finished = self.generation(generation)
        self._events.append(generation, generation_pb2.GenerationEvent(finished=finished))

    def _append_queued(self, generation: str, position: int, reason: str) -> None:
        queued = generation_pb2.Queued(position=position, reason=reason)
        self._events.append(generation, generation_pb2.GenerationEvent(queued=queued))
