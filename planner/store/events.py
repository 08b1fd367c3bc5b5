"""The events of generations, each with a sequence of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ditplan.v1 import generation_pb2

from planner.store.messages import timestamp


class EventLog:
    """Writes within the transaction of whoever calls."""

    def __init__(self, db: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    def append(
        self, generation: str, event: generation_pb2.GenerationEvent, step: int | None = None
    ) -> None:
        """Gives the event its place and time; ``step`` makes it an outcome of this attempt."""
        row = self._db.execute(
            "UPDATE generations SET last_sequence = last_sequence + 1 WHERE generation = ? "
            "RETURNING last_sequence, attempt",
            (generation,),
        ).fetchone()
        event.generation = f"generations/{generation}"
        event.sequence = row["last_sequence"]
        event.time.CopyFrom(timestamp(self._clock()))
        self._db.execute(
            "INSERT INTO events (generation, sequence, attempt, step, body) VALUES (?, ?, ?, ?, ?)",
            (generation, event.sequence, row["attempt"], step, event.SerializeToString()),
        )

    def after(
        self, generation: str, sequence: int, limit: int
    ) -> list[generation_pb2.GenerationEvent]:
        rows = self._db.execute(
            "SELECT body FROM events WHERE generation = ? AND sequence > ? "
            "ORDER BY sequence LIMIT ?",
            (generation, sequence, limit),
        )
        return [generation_pb2.GenerationEvent.FromString(row["body"]) for row in rows]

    def outcomes(self, generation: str, attempt: int) -> list[generation_pb2.StepOutcome]:
        """What one attempt's steps did, in order."""
        rows = self._db.execute(
            "SELECT body FROM events WHERE generation = ? AND attempt = ? AND step IS NOT NULL "
            "ORDER BY step",
            (generation, attempt),
        )
        return [generation_pb2.GenerationEvent.FromString(row["body"]).step for row in rows]
