"""A writer that is killed in the middle leaves a store that is whole."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from ditplan.v1 import executor_pb2, generation_pb2

from planner.store.sqlite import SqliteStore
from planner.store.values import Ending, State

ROUNDS = 20
MOST_SECONDS = 0.12
# Apart by more than a round writes.
NUMBERS_APART = 1_000_000
LATER = 2e9
STATES = {"accepted": None, "succeeded": State.SUCCEEDED, "cancelled": State.CANCELLED}
# Generations of which one part of a transaction is there and another is not.
HALF_DONE = """
SELECT generation FROM generations g WHERE
  (state = 2) != EXISTS (SELECT 1 FROM leases l WHERE l.generation = g.generation)
  OR (state > 2) != (end_time IS NOT NULL)
  OR compacted = 0 AND
    last_sequence != (SELECT count(*) FROM events e WHERE e.generation = g.generation)
  OR compacted = 1 AND 2 != (SELECT count(*) FROM events e WHERE e.generation = g.generation)
  OR state > 1 AND compacted = 0 AND steps_done != (SELECT count(step) FROM events e
    WHERE e.generation = g.generation AND e.attempt = g.attempt)
  OR (state = 3) != EXISTS (SELECT 1 FROM artifacts a WHERE a.generation = g.generation)
    AND state != 2
"""
# Of generations that are not there.
ORPHANS = """
SELECT generation FROM events UNION SELECT generation FROM leases
UNION SELECT generation FROM artifacts EXCEPT SELECT generation FROM generations
"""


def killed_writer(path: Path, first: int, seconds: float) -> list[list[str]]:
    """What a writer had promised by the time that it was killed."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.planner.store.writer", str(path), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    promised = [writer.stdout.readline().split()]
    time.sleep(seconds)
    writer.kill()
    promised.extend(line.split() for line in writer.stdout if line.endswith("\n"))
    writer.wait()
    return promised


def test_nothing_promised_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    dice = random.Random(7)
    accepted: dict[str, State | None] = {}
    for round_ in range(ROUNDS):
        for what, name in killed_writer(
            path, round_ * NUMBERS_APART, dice.uniform(0, MOST_SECONDS)
        ):
            if what == "forgetting":
                # Whether it is forgotten by now is open, and maybe it was never promised.
                accepted.pop(name, None)
            else:
                accepted[name] = STATES[what]
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            assert db.execute(HALF_DONE).fetchall() == []
            assert db.execute(ORPHANS).fetchall() == []
    assert len(accepted) > ROUNDS

    store = SqliteStore(path)
    for name, state in accepted.items():
        found = store.generation(name)
        assert found is not None, name
        assert state is None or State(found.state) is state
        assert store.request("o", name) == (name, b"digest")
    for lease in store.leases_of("e"):
        store.requeue(lease, "the planner was killed", LATER)
    executor = executor_pb2.Executor(name="e")
    success = Ending(State.SUCCEEDED, record=generation_pb2.Record())
    while (lease := store.take(["r"], executor, LATER)) is not None:
        store.end_leased(lease, success)
    ended = store.ended_before(LATER, len(accepted) + ROUNDS)
    assert set(accepted) <= set(ended), "every one of them ends"
    store.close()
