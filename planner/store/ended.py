"""What becomes of ended generations: made small, forgotten, and their space given back."""

from __future__ import annotations

import sqlite3

# Free pages that stay with the file, to be written to again.
_SPARE_PAGES = 64


class EndedGenerations:
    """Reads, and writes within the transaction of whoever calls."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def before(self, time: float, limit: int) -> list[str]:
        """Those that ended by then, the oldest first."""
        rows = self._db.execute(
            "SELECT generation FROM generations WHERE end_time <= ? ORDER BY end_time LIMIT ?",
            (time, limit),
        )
        return [row["generation"] for row in rows]

    def forget(self, generation: str) -> None:
        for table in ("events", "images", "artifacts"):
            self._db.execute(f"DELETE FROM {table} WHERE generation = ?", (generation,))
        rows = self._db.execute(
            "DELETE FROM generations WHERE generation = ? RETURNING requirement", (generation,)
        )
        for row in rows.fetchall():
            self._db.execute(
                "DELETE FROM requirements WHERE requirement = ? AND NOT EXISTS "
                "(SELECT 1 FROM generations g WHERE g.requirement = requirements.requirement)",
                (row["requirement"],),
            )

    def compact(self, time: float, limit: int) -> int:
        """Of those that ended by then keeps the first event and the last; how many there were."""
        rows = self._db.execute(
            "UPDATE generations SET compacted = 1 WHERE number IN (SELECT number FROM generations "
            "WHERE end_time <= ? AND compacted = 0 ORDER BY end_time LIMIT ?) "
            "RETURNING generation, last_sequence",
            (time, limit),
        ).fetchall()
        for row in rows:
            self._db.execute(
                "DELETE FROM events WHERE generation = ? AND sequence > 1 AND sequence < ?",
                (row["generation"], row["last_sequence"]),
            )
        return len(rows)

    def used_bytes(self) -> int:
        """Of the database's pages that hold something, and of the artifacts."""
        artifacts = self._db.execute("SELECT coalesce(sum(size_bytes), 0) FROM artifacts")
        pages = self._pragma("page_count") - self._pragma("freelist_count")
        return int(artifacts.fetchone()[0]) + pages * self._pragma("page_size")

    def give_back(self, pages: int) -> bool:
        """Shortens the file by so many pages that hold nothing; whether there are more."""
        spare = self._pragma("freelist_count") - _SPARE_PAGES
        if spare <= 0:
            return False
        self._db.execute(f"PRAGMA incremental_vacuum({min(spare, pages)})").fetchall()
        if spare > pages:
            return True
        # Only now does the file itself become shorter.
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return False

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
