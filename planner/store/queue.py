"""The queue as the database keeps it: whose turn it is, who waits, and until when."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from planner.store.values import Waiting

# One look into the index a key, however many generations are queued.
WAITING = """
WITH RECURSIVE keys (key) AS (
  SELECT min(requirement) FROM generations WHERE state = 1
  UNION ALL
  SELECT (SELECT min(requirement) FROM generations WHERE state = 1 AND requirement > key)
  FROM keys WHERE key IS NOT NULL
)
SELECT key, number, turn,
  (SELECT min(queue_time) FROM generations WHERE state = 1 AND requirement = key) AS since
FROM keys JOIN generations ON number =
  (SELECT number FROM generations WHERE state = 1 AND requirement = key
   ORDER BY turn, number LIMIT 1)
"""
TAKE = """
UPDATE generations
SET state = 2, attempt = attempt + 1, executor = ?, steps_done = 0,
  start_time = coalesce(start_time, ?)
WHERE number = (
  SELECT number FROM json_each(?) JOIN generations ON number =
    (SELECT number FROM generations WHERE state = 1 AND requirement = value
     ORDER BY turn, number LIMIT 1)
  ORDER BY turn, number LIMIT 1)
RETURNING generation, attempt
"""
_POSITION = """
SELECT count(*) FROM generations
WHERE state = 1 AND (turn, number) < (SELECT turn, number FROM generations WHERE generation = ?)
"""
_NEXT_DEADLINE = """
SELECT min(t) FROM (
  SELECT min(expires_at) AS t FROM leases
  UNION ALL SELECT min(queue_deadline) FROM generations WHERE state = 1
  UNION ALL SELECT min(deadline) FROM generations
    WHERE deadline IS NOT NULL AND end_time IS NULL AND state = 1
  UNION ALL SELECT min(deadline) FROM leases JOIN generations USING (generation)
    WHERE cancel_reason IS NULL)
"""
_EXPIRED = """
SELECT generation FROM generations LEFT JOIN leases USING (generation)
WHERE deadline IS NOT NULL AND end_time IS NULL AND deadline <= ? AND cancel_reason IS NULL
"""


class Queue:
    """Reads, and writes within the transaction of whoever calls."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def length(self, owner: str | None) -> int:
        """Of all, or of one client."""
        where, values = ("", ()) if owner is None else (" AND owner = ?", (owner,))
        statement = f"SELECT count(*) FROM generations WHERE state = 1{where}"
        return int(self._db.execute(statement, values).fetchone()[0])

    def position(self, generation: str) -> int:
        """How many are ahead."""
        return int(self._db.execute(_POSITION, (generation,)).fetchone()[0])

    def waiting(self, now: float) -> list[Waiting]:
        return [
            Waiting(row["key"], row["number"], row["turn"], now - row["since"])
            for row in self._db.execute(WAITING)
        ]

    def take(self, keys: Collection[str], executor: str, now: float) -> tuple[str, int] | None:
        """Makes the next work RUNNING; its generation and epoch."""
        parameters = (executor, now, json.dumps(list(keys)))
        row = self._db.execute(TAKE, parameters).fetchone()
        return None if row is None else (row["generation"], row["attempt"])

    def overdue(self, now: float) -> list[str]:
        rows = self._db.execute(
            "SELECT generation FROM generations WHERE state = 1 AND queue_deadline <= ?", (now,)
        )
        return [row["generation"] for row in rows]

    def expired(self, now: float) -> list[str]:
        return [row["generation"] for row in self._db.execute(_EXPIRED, (now,))]

    def next_deadline(self) -> float | None:
        row = self._db.execute(_NEXT_DEADLINE).fetchone()
        return None if row[0] is None else float(row[0])
