"""The store's promises, on a real file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2

from planner.store.queue import TAKE, WAITING
from planner.store.schema import StoreVersionError
from planner.store.sqlite import SqliteStore
from planner.store.values import (
    Ending,
    Filter,
    Lease,
    Needs,
    StaleLeaseError,
    State,
    StorageFullError,
    Waiting,
)
from tests.planner.store.writer import new, outcome

EXECUTOR = executor_pb2.Executor(name="exec-1")
LATER = 2e9
SUCCESS = Ending(State.SUCCEEDED, record=generation_pb2.Record())
CANCELLED = Ending(State.CANCELLED, failure=generation_pb2.Failure(code="CANCELLED"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def take(store: SqliteStore, requirement: str = "r", expires_at: float = LATER) -> Lease:
    lease = store.take([requirement], EXECUTOR, expires_at)
    assert lease is not None
    return lease


def states(store: SqliteStore) -> dict[str, State]:
    found = store.page(None, 100, Filter())
    return {g.name.removeprefix("generations/"): State(g.state) for _, g in found}


def test_the_oldest_matching_work_is_taken_first(store: SqliteStore) -> None:
    for name, requirement in (("a", "other"), ("b", "r"), ("c", "r")):
        store.create(new(name, requirement))
    assert [take(store).generation, take(store).generation] == ["b", "c"]
    assert store.take(["r"], EXECUTOR, LATER) is None
    assert states(store) == {"a": State.QUEUED, "b": State.RUNNING, "c": State.RUNNING}


def test_the_oldest_over_several_keys_is_taken_first(store: SqliteStore) -> None:
    for name, requirement in (("a", "other"), ("b", "r"), ("c", "s"), ("d", "r")):
        store.create(new(name, requirement))
    keys = {"s", "r", "unknown"}
    taken = []
    while (lease := store.take(keys, EXECUTOR, LATER)) is not None:
        taken.append((lease.generation, lease.requirement))
    assert taken == [("b", "r"), ("c", "s"), ("d", "r")]
    assert store.take([], EXECUTOR, LATER) is None


def test_a_minute_of_waiting_is_worth_a_step_of_priority(path: Path) -> None:
    now = 1e6
    store = SqliteStore(path, clock=lambda: now)
    store.create(new("low", priority=-100))
    now += 60.0 * 200 - 1.0
    store.create(new("high-before", priority=100))
    now += 2.0
    store.create(new("high-after", priority=100))
    order = ["high-before", "low", "high-after"]
    assert [take(store).generation for _ in order] == order, "nothing is overtaken for ever"
    store.close()


def test_priorities_hold_over_several_keys_and_among_those_that_wait(path: Path) -> None:
    now = 1e6
    store = SqliteStore(path, clock=lambda: now)
    for name, key, priority in (("a", "r", 0), ("b", "s", 1), ("c", "r", 2), ("d", "s", 1)):
        store.create(new(name, key, priority=priority))
    best = sorted(store.waiting(), key=lambda each: (each.turn, each.number))
    assert [(each.key, each.number) for each in best] == [("r", 3), ("s", 2)]
    taken = [store.take(["s", "r"], EXECUTOR, LATER) for _ in range(4)]
    assert [lease.generation for lease in taken if lease] == ["c", "b", "d", "a"]
    store.close()


def test_a_clock_that_is_set_back_does_not_change_the_order(path: Path) -> None:
    now = 1e6
    store = SqliteStore(path, clock=lambda: now)
    store.create(new("a"))
    now -= 3600.0
    store.create(new("b"))
    assert [take(store).generation, take(store).generation] == ["a", "b"]
    listed = [number for number, _ in store.page(None, 9, Filter(created_since=1e6))]
    assert listed == [2, 1]
    store.close()


def test_requeued_work_is_told_how_many_are_ahead(store: SqliteStore) -> None:
    for name, priority in (("a", 0), ("b", 1), ("c", 2), ("d", 0)):
        store.create(new(name, priority=priority))
    c, b = take(store), take(store)
    assert (c.generation, b.generation) == ("c", "b")
    store.requeue(c, "lost", LATER)
    store.requeue(b, "lost", LATER)
    positions = {name: store.events(name, 0, 9)[-1].queued.position for name in "cb"}
    assert positions == {"c": 0, "b": 1}


def test_the_oldest_of_every_key_waits_since_it_was_queued(path: Path) -> None:
    now = 100.0
    store = SqliteStore(path, clock=lambda: now)
    assert store.waiting() == []
    for name, requirement in (("a", "r"), ("b", "s"), ("c", "r")):
        store.create(new(name, requirement))
        now += 10.0
    assert sorted(store.waiting(), key=lambda each: each.number) == [
        Waiting("r", 1, 100.0, 30.0),
        Waiting("s", 2, 110.0, 20.0),
    ]
    lost = take(store)
    assert {each.key: each.number for each in store.waiting()} == {"r": 3, "s": 2}
    store.requeue(lost, "executor exec-1 was lost", LATER)
    now += 1.0
    assert Waiting("r", 1, 100.0, 11.0) in store.waiting(), "the other has not been queued anew"
    for requirement in ("r", "s", "r"):
        take(store, requirement)
    assert store.waiting() == []
    store.close()


def test_what_a_key_stands_for_is_kept(store: SqliteStore) -> None:
    program = plan_pb2.Program(attention_backend="sage")
    store.create(replace(new("a"), needs=Needs("r", "flux", program)))
    store.create(replace(new("b"), needs=Needs("r", "flux", program)))
    assert store.needs("r") == Needs("r", "flux", program)
    with pytest.raises(KeyError):
        store.needs("unknown")


def test_a_long_queue_of_few_keys_is_not_looked_through(path: Path) -> None:
    store = SqliteStore(path)
    for key in ("r", "s", "t"):
        store.create(new(f"first-{key}", key))
    columns = ", ".join(
        row[1]
        for row in sqlite3.connect(path).execute("PRAGMA table_info(generations)")
        if row[1] not in ("number", "generation", "request_id", "requirement")
    )
    with sqlite3.connect(path) as db:
        db.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            f"INSERT INTO generations (generation, requirement, {columns}) "
            f"SELECT printf('g%d', i), substr('rst', 1 + i % 3, 1), {columns} "
            "FROM n, generations WHERE generation = 'first-r'"
        )
    assert store.queue_length() > 20_000
    began = time.perf_counter()
    for _ in range(100):
        assert len(store.waiting()) == 3
    looked = time.perf_counter()
    for _ in range(100):
        take(store, "t")
    took = time.perf_counter()
    print(
        f"\nof 20,000: {(looked - began) * 10:.2f} ms a look, {(took - looked) * 10:.2f} ms a take"
    )
    for statement in (WAITING, TAKE):
        plan = store._db.execute(f"EXPLAIN QUERY PLAN {statement}", (None,) * statement.count("?"))
        scanned = [row["detail"] for row in plan if row["detail"].startswith("SCAN")]
        assert all("generations" not in each for each in scanned), scanned
    store.close()


def test_requeued_work_keeps_its_place_and_forgets_its_steps(store: SqliteStore) -> None:
    store.create(new("a"))
    lost = take(store)
    store.add_steps(lost, [outcome(0), outcome(1)], LATER)
    store.create(new("b"))
    store.requeue(lost, "executor exec-1 was lost", LATER)
    again = take(store)
    assert (again.generation, again.epoch, again.steps_done) == ("a", 2, 0)
    store.add_steps(again, [outcome(0)], LATER)
    assert [o.step for o in store.outcomes(again)] == [0]
    kinds = [event.WhichOneof("event") for event in store.events("a", 0, 100)]
    assert kinds == ["planned", "queued", "started", "step", "step", "queued", "started", "step"]
    assert [event.sequence for event in store.events("a", 5, 100)] == [6, 7, 8]


@pytest.mark.parametrize("end", ["requeue", "end", "newer"])
def test_a_lease_that_is_over_changes_nothing(store: SqliteStore, end: str) -> None:
    store.create(new("a"))
    stale = take(store)
    if end == "end":
        store.end_leased(stale, CANCELLED)
    else:
        store.requeue(stale, "", LATER)
    if end == "newer":
        take(store)
    before = store.generation("a")
    for write in (
        lambda: store.extend(stale, LATER),
        lambda: store.add_steps(stale, [outcome(0)], LATER),
        lambda: store.requeue(stale, "", LATER),
        lambda: store.end_leased(stale, SUCCESS),
        lambda: store.add_artifact(stale, generation_pb2.Artifact(name="image.png")),
    ):
        with pytest.raises(StaleLeaseError):
            write()
    assert store.generation("a") == before


def test_a_step_is_stored_once_whoever_asks(store: SqliteStore) -> None:
    store.create(new("a"))
    lease = take(store)
    store.add_steps(lease, [outcome(0)], LATER)
    with pytest.raises(sqlite3.IntegrityError):
        store.add_steps(lease, [outcome(1), outcome(0)], LATER)
    assert [o.step for o in store.outcomes(lease)] == [0], "a failed write leaves nothing behind"
    found = store.generation("a")
    assert found is not None
    assert found.steps_done == 1


def test_completion_publishes_the_artifacts_of_its_own_lease(store: SqliteStore) -> None:
    store.create(new("a"))
    lost = take(store)
    store.add_artifact(lost, generation_pb2.Artifact(name="old.png"))
    store.requeue(lost, "", LATER)
    lease = take(store)
    store.add_artifact(lease, generation_pb2.Artifact(name="image.png", sha256="draft"))
    store.add_artifact(lease, generation_pb2.Artifact(name="image.png", sha256="final"))
    assert store.artifact("a", "image.png") is None, "not before it SUCCEEDED"
    store.end_leased(lease, SUCCESS)
    finished = store.events("a", 0, 100)[-1].finished
    assert [(a.name, a.sha256) for a in finished.artifacts] == [("image.png", "final")]
    assert finished == store.generation("a")
    assert store.artifact("a", "old.png") is None


def test_a_lease_being_cancelled_only_expires_sooner(store: SqliteStore) -> None:
    store.create(new("a"))
    lease = take(store, expires_at=100.0)
    assert store.request_stop("a", "CANCELLED", "why", 50.0)
    assert store.request_stop("a", "DEADLINE_EXCEEDED", "again", 70.0)
    store.extend(lease, 200.0)
    store.add_steps(lease, [outcome(0)], 200.0)
    store.extend_all(200.0)
    current = store.lease("a")
    assert current is not None
    found = current.expires_at, current.cancel_code, current.cancel_reason
    assert found == (50.0, "CANCELLED", "why")
    assert store.expired_leases(49.0) == []
    assert [lease.generation for lease in store.expired_leases(50.0)] == ["a"]


def test_the_next_deadline_is_of_lease_or_queue(store: SqliteStore) -> None:
    assert store.next_deadline() is None
    store.create(new("a"))
    assert store.next_deadline() == LATER
    take(store, expires_at=7.0)
    assert store.next_deadline() == 7.0
    assert store.overdue(LATER) == []


def test_only_queued_work_can_be_ended_as_queued(store: SqliteStore) -> None:
    store.create(new("a"))
    assert store.end_queued("a", CANCELLED)
    assert not store.end_queued("a", CANCELLED)
    assert not store.end_queued("unknown", CANCELLED)
    assert not store.request_stop("a", "CANCELLED", "", LATER)
    assert store.queue_length() == 0


def test_the_oldest_that_ended_are_forgotten_first(path: Path) -> None:
    now = 100.0
    store = SqliteStore(path, clock=lambda: now)
    for name in "abcd":
        store.create(new(name))
    for name in ("b", "a", "c"):
        now += 10.0
        store.end_queued(name, CANCELLED)
    assert store.ended_before(LATER, 2) == ["b", "a"]
    assert store.ended_before(120.0, 9) == ["b", "a"]
    store.forget("b")
    assert store.needs("r").model == "m", "of others"
    assert store.generation("b") is None
    assert store.events("b", 0, 9) == []
    assert store.ended_before(LATER, 9) == ["a", "c"]
    assert store.compact(120.0, 9) == 1
    assert store.compact(120.0, 9) == 0, "once is enough"
    assert [len(store.events(name, 0, 9)) for name in "acd"] == [2, 3, 2]
    store.close()


def test_what_a_key_stands_for_is_forgotten_with_the_last_that_has_it(store: SqliteStore) -> None:
    for name, key in (("a", "r"), ("b", "r"), ("c", "s")):
        store.create(new(name, key))
        store.end_queued(name, CANCELLED)
    store.forget("a")
    assert store.needs("r").key == "r"
    store.forget("b")
    with pytest.raises(KeyError):
        store.needs("r")
    assert store.needs("s").key == "s"


def test_the_space_of_what_is_forgotten_is_given_back(path: Path) -> None:
    store = SqliteStore(path)
    prompt = generation_pb2.GenerationSpec(model="m", prompt="p" * 10_000)
    for i in range(300):
        store.create(replace(new(f"g{i}"), spec=prompt))
        store.end_queued(f"g{i}", CANCELLED)
    used = store.used_bytes()
    before = path.stat().st_size
    pieces = 0
    for i in range(300):
        store.forget(f"g{i}")
    while store.give_back(64):
        pieces += 1
    assert pieces > 5, "in small pieces"
    assert used > 3_000_000
    assert store.used_bytes() < used / 10
    assert path.stat().st_size < before / 5
    assert not store.give_back(64)
    store.close()


def test_a_store_without_space_says_so_and_goes_on_when_there_is_some(store: SqliteStore) -> None:
    store.create(new("a"))
    lease = take(store)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    prompt = generation_pb2.GenerationSpec(model="m", prompt="p" * 10_000)
    with pytest.raises(StorageFullError, match="full"):
        store.create(replace(new("b"), spec=prompt))
    assert store.generation("b") is None
    assert store.queue_length() == 0
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.create(replace(new("b"), spec=prompt))
    store.end_leased(lease, SUCCESS)
    assert states(store) == {"a": State.SUCCEEDED, "b": State.QUEUED}


def test_another_process_goes_on_with_the_file(path: Path, store: SqliteStore) -> None:
    store.create(new("a", request_id="mine"))
    lease = take(store)
    store.add_steps(lease, [outcome(0)], LATER)
    store.close()
    reopened = SqliteStore(path)
    assert reopened.request("", "mine") == ("a", b"digest")
    assert reopened.leases_of("exec-1")[0].steps_done == 1
    reopened.add_steps(lease, [outcome(1)], LATER)
    reopened.end_leased(lease, SUCCESS)
    assert states(reopened) == {"a": State.SUCCEEDED}
    reopened.close()


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreVersionError, match="99"):
        SqliteStore(path)
