"""The leases as the database keeps them: one row while its generation is RUNNING."""

from __future__ import annotations

import sqlite3

from ditplan.v1 import executor_pb2

from planner.store import messages
from planner.store.values import Lease, StaleLeaseError

_LEASES = (
    "SELECT l.*, g.requirement, g.plan_id, g.steps_done, g.step_count, g.traceparent, "
    "g.handed_back FROM leases l JOIN generations g USING (generation)"
)


class Leases:
    """Reads, and writes within the transaction of whoever calls."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def insert(
        self, generation: str, epoch: int, executor: executor_pb2.Executor, expires_at: float
    ) -> None:
        self._db.execute(
            "INSERT INTO leases (generation, epoch, executor, announced, expires_at) "
            "VALUES (?, ?, ?, ?, ?)",
            (generation, epoch, executor.name, executor.SerializeToString(), expires_at),
        )

    def of(self, generation: str) -> Lease | None:
        row = self._db.execute(f"{_LEASES} WHERE generation = ?", (generation,)).fetchone()
        return None if row is None else messages.lease(row)

    def held_by(self, executor: str) -> list[Lease]:
        rows = self._db.execute(f"{_LEASES} WHERE l.executor = ?", (executor,))
        return [messages.lease(row) for row in rows]

    def expired(self, now: float) -> list[Lease]:
        rows = self._db.execute(f"{_LEASES} WHERE expires_at <= ?", (now,))
        return [messages.lease(row) for row in rows]

    def check(self, lease: Lease) -> None:
        """Raises StaleLeaseError where it is over."""
        row = self._db.execute(
            "SELECT epoch FROM leases WHERE generation = ?", (lease.generation,)
        ).fetchone()
        if row is None or row["epoch"] != lease.epoch:
            raise StaleLeaseError(f"generations/{lease.generation} epoch {lease.epoch}")

    def extend(self, lease: Lease, expires_at: float) -> None:
        self._extend("generation = ?", (lease.generation,), expires_at)

    def extend_all(self, expires_at: float) -> None:
        self._extend("TRUE", (), expires_at)

    def stop(self, generation: str, code: str, reason: str, expires_at: float) -> bool:
        changed = self._db.execute(
            "UPDATE leases SET cancel_code = coalesce(cancel_code, ?), "
            "cancel_reason = coalesce(cancel_reason, ?), expires_at = min(expires_at, ?) "
            "WHERE generation = ?",
            (code, reason, expires_at, generation),
        )
        return changed.rowcount == 1

    def remove(self, lease: Lease) -> None:
        self._db.execute("DELETE FROM leases WHERE generation = ?", (lease.generation,))

    def _extend(self, where: str, parameters: tuple[str, ...], expires_at: float) -> None:
        self._db.execute(
            "UPDATE leases SET expires_at = CASE WHEN cancel_reason IS NULL THEN ? "
            f"ELSE min(expires_at, ?) END WHERE {where}",
            (expires_at, expires_at, *parameters),
        )
