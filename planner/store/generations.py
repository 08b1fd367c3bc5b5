"""Generations as the database keeps them, with what belongs to one alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from ditplan.v1 import generation_pb2, plan_pb2

from planner.store import messages
from planner.store.values import (
    PRIORITY_SECONDS,
    Ending,
    Filter,
    Needs,
    NewGeneration,
    State,
    StoredArtifact,
)


class Generations:
    """Reads, and writes within the transaction of whoever calls."""

    def __init__(self, db: sqlite3.Connection, retain_seconds: float) -> None:
        self._db = db
        self._retain_seconds = retain_seconds

    def insert(self, new: NewGeneration, now: float) -> None:
        """QUEUED, with what it needs and the pictures that it starts from."""
        now = max(now, self._last_create_time())
        needs, cost = new.needs, new.plan.estimate.cost
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
            "step_flops": cost.step_flops,
            "min_flops": cost.min_flops,
            "max_flops": cost.max_flops,
            "create_time": now,
            "queue_time": now,
            "queue_deadline": new.queue_deadline,
            "deadline": new.deadline,
            "traceparent": new.traceparent,
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

    def needs(self, key: str) -> Needs:
        row = self._db.execute(
            "SELECT model, body FROM requirements WHERE requirement = ?", (key,)
        ).fetchone()
        if row is None:
            raise KeyError(key)
        return Needs(key, row["model"], plan_pb2.Program.FromString(row["body"]))

    def add_artifact(self, generation: str, epoch: int, artifact: generation_pb2.Artifact) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO artifacts (generation, epoch, name, size_bytes, body) "
            "VALUES (?, ?, ?, ?, ?)",
            (generation, epoch, artifact.name, artifact.size_bytes, artifact.SerializeToString()),
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

    def queue(self, generation: str, now: float, queue_deadline: float, handed_back: bool) -> None:
        """Makes it QUEUED again, in its old place and with nothing done."""
        self._db.execute("DELETE FROM artifacts WHERE generation = ?", (generation,))
        self._db.execute(
            "UPDATE generations SET state = ?, executor = '', steps_done = 0, "
            "queue_time = ?, queue_deadline = ?, handed_back = handed_back + ? "
            "WHERE generation = ?",
            (State.QUEUED.value, now, queue_deadline, handed_back, generation),
        )

    def add_steps_done(self, generation: str, steps: int) -> None:
        self._db.execute(
            "UPDATE generations SET steps_done = steps_done + ? WHERE generation = ?",
            (steps, generation),
        )

    def end(self, generation: str, ending: Ending, now: float) -> None:
        """Only the artifacts of an attempt that SUCCEEDED stay."""
        self._db.execute(
            "UPDATE generations SET state = ?, end_time = ?, failure = ?, record = ? "
            "WHERE generation = ?",
            (
                ending.state.value,
                now,
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

    def _last_create_time(self) -> float:
        """Times of creation never fall, whatever is done to the clock."""
        row = self._db.execute(
            "SELECT create_time FROM generations ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return 0.0 if row is None else float(row["create_time"])

    def _row(self, generation: str, columns: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            f"SELECT {columns} FROM generations WHERE generation = ?", (generation,)
        ).fetchone()
        return row
