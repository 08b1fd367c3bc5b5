"""The queue and the runs at a glance, read through the indices of unfinished work alone."""

from __future__ import annotations

import sqlite3

from planner.store.values import Overview, QueuedWork, RunningWork

# However many generations have ended, none of them is looked at.
_LENGTH = "SELECT count(*), min(queue_time) FROM generations INDEXED BY waits WHERE state = 1"
_HEAD = (
    "SELECT generation, model, priority, queue_time FROM generations INDEXED BY queue_of_all "
    "WHERE state = 1 ORDER BY turn, number LIMIT ?"
)
_RUNS = (
    "SELECT generation, g.executor, g.plan_id, g.attempt, g.steps_done, g.step_count, "
    "g.start_time FROM leases JOIN generations g USING (generation) LIMIT ?"
)


def read(db: sqlite3.Connection, now: float, at_most: int, runs_at_most: int) -> Overview:
    """The first ``at_most`` of the queue, and as many runs as asked for."""
    queued, oldest = db.execute(_LENGTH).fetchone()
    (running,) = db.execute("SELECT count(*) FROM leases").fetchone()
    return Overview(
        queued=queued,
        oldest_queued_seconds=max(now - oldest, 0.0) if queued else 0.0,
        running=running,
        head=tuple(
            QueuedWork(
                row["generation"],
                row["model"],
                row["priority"],
                max(now - row["queue_time"], 0.0),
            )
            for row in db.execute(_HEAD, (at_most,))
        ),
        runs=tuple(RunningWork(*row) for row in db.execute(_RUNS, (runs_at_most,))),
    )
