"""The queue and the runs at a glance, read through the indices of unfinished work alone."""

from __future__ import annotations

import sqlite3

from planner.store.values import Overview, QueuedWork, RunningWork

# However many generations have ended, none of them is looked at.
_QUEUE = "FROM generations INDEXED BY queue_deadlines WHERE state = 1"
_HEAD = (
    "SELECT generation, model, queue_time FROM requirements JOIN "
    f"(SELECT number, generation, requirement, queue_time {_QUEUE} ORDER BY number LIMIT ?) "
    "USING (requirement) ORDER BY number"
)
_RUNS = (
    "SELECT generation, g.executor, g.plan_id, g.attempt, g.steps_done, g.step_count, "
    "g.start_time FROM leases JOIN generations g USING (generation) LIMIT ?"
)


def read(db: sqlite3.Connection, now: float, at_most: int, runs_at_most: int) -> Overview:
    """The first ``at_most`` of the queue, and as many runs as asked for."""
    queued, oldest = db.execute(f"SELECT count(*), min(queue_time) {_QUEUE}").fetchone()
    (running,) = db.execute("SELECT count(*) FROM leases").fetchone()
    return Overview(
        queued=queued,
        oldest_queued_seconds=max(now - oldest, 0.0) if queued else 0.0,
        running=running,
        head=tuple(
            QueuedWork(row["generation"], row["model"], max(now - row["queue_time"], 0.0))
            for row in db.execute(_HEAD, (at_most,))
        ),
        runs=tuple(RunningWork(*row) for row in db.execute(_RUNS, (runs_at_most,))),
    )
