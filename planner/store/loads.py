"""How much work is there, and what runs took, read through the indices that lead to it alone."""

from __future__ import annotations

import sqlite3

from ditplan.v1 import generation_pb2, plan_pb2

from planner.store.values import Finished, Load, State, Unfinished

_LOAD = "requirement, model, plan_id, step_count, step_flops, min_flops, max_flops"
# In the index's own order, so that groups are counted as they are read.
_QUEUED = (
    f"SELECT {_LOAD}, count(*) FROM generations INDEXED BY loads WHERE state = 1 "
    "GROUP BY requirement, plan_id, step_count, step_flops, min_flops, max_flops, model"
)
_RUNNING = f"SELECT {_LOAD}, steps_done FROM leases JOIN generations USING (generation)"
_FINISHED = f"SELECT {_LOAD}, plan, record FROM generations WHERE generation = ? AND state = ?"
_LAST = (
    f"SELECT {_LOAD}, plan, record, state FROM generations INDEXED BY ended "
    "WHERE end_time IS NOT NULL ORDER BY end_time DESC LIMIT ?"
)


def unfinished(db: sqlite3.Connection) -> list[Unfinished]:
    queued = [Unfinished(Load(*row[:7]), row[7], None) for row in db.execute(_QUEUED)]
    return queued + [Unfinished(Load(*row[:7]), 1, row[7]) for row in db.execute(_RUNNING)]


def finished(db: sqlite3.Connection, generation: str) -> Finished | None:
    row = db.execute(_FINISHED, (generation, State.SUCCEEDED.value)).fetchone()
    return None if row is None else _finished(row)


def last_finished(db: sqlite3.Connection, at_most: int) -> list[Finished]:
    rows = db.execute(_LAST, (at_most,))
    return [_finished(row) for row in rows if row["state"] == State.SUCCEEDED.value]


def _finished(row: sqlite3.Row) -> Finished:
    plan = plan_pb2.Plan.FromString(row["plan"])
    record = generation_pb2.Record.FromString(row["record"])
    return Finished(Load(*row[:7]), plan.estimate.cost, record)
