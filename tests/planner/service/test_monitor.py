"""What an operator sees of a planner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2, monitor_pb2, plan_pb2
from ditplan.v1.monitor_pb2_grpc import MonitorServiceStub

from planner.dispatch.attempts import ended
from planner.dispatch.notices import Notices
from planner.dispatch.roster import Roster
from planner.dispatch.sessions import Sessions
from planner.scaling.forecast import Forecast
from planner.service.server import Planner, Settings
from planner.store.sqlite import SqliteStore
from planner.store.values import Needs, NewGeneration
from planner.telemetry.status import StatusBoard
from tests.planner.service.peers import MODEL, Client, Executor, asking, create_request, refused


def _watch(client: Client, **fields: object) -> grpc.aio.UnaryStreamCall:
    stub = MonitorServiceStub(client.channel)
    return stub.WatchStatus(monitor_pb2.WatchStatusRequest(**fields))  # type: ignore[arg-type]


async def _status(client: Client) -> monitor_pb2.WatchStatusResponse:
    [status] = [status async for status in _watch(client, once=True, interval_seconds=0.1)]
    return status


async def test_a_status_shows_queue_executors_and_the_step_that_a_run_has_reached(
    settings: Settings,
) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "b") as busy,
        Executor(planner.address, "a") as idle,
        asking(busy),
    ):
        empty = await _status(client)
        running = await client.create()
        run = await busy.start()
        await run.report(0, 3)
        other: dict[str, Any] = {"queue": True, "model": "black-forest-labs/FLUX.1-schnell"}
        second = await client.create(**other)
        urgent = create_request(**other)
        urgent.priority = 5
        first = (await client.generations.CreateGeneration(urgent)).generation
        async with asking(idle):
            await asyncio.sleep(0.1)
            status = await _status(client)

    assert empty.version.startswith("ditplan ")
    assert (empty.queued, empty.running, len(empty.executors)) == (0, 0, 1)
    assert (status.queued, status.running) == (2, 1)
    assert [each.generation for each in status.queue] == [first.name, second.name]
    assert [each.priority for each in status.queue] == [5, 0]
    assert status.queue[0].model == "black-forest-labs/FLUX.1-schnell"
    assert status.oldest_queued_seconds >= status.queue[1].waited_seconds > 0
    assert [each.executor.name for each in status.executors] == ["a", "b"]
    assert not status.executors[0].HasField("run")
    assert status.executors[0].executor.model == MODEL
    assert not status.executors[0].executor.component_configs
    assert [each.silent_seconds for each in status.executors] == [0, 0]
    shown = status.executors[1].run
    assert (shown.generation, shown.plan_id) == (running.name, running.plan.plan_id)
    assert (shown.attempt, shown.steps_done, shown.step_count) == (1, 3, 6)
    assert shown.last_step.step == 2
    assert abs(shown.start_time.ToSeconds() - time.time()) < 10


async def test_a_stream_goes_on_in_its_interval_until_the_planner_stops(
    settings: Settings,
) -> None:
    planner = Planner(settings)
    await planner.start()
    async with Client(planner.address) as client:
        statuses = aiter(_watch(client, interval_seconds=0.2))
        began = time.monotonic()
        times = [(await anext(statuses)).time.ToMicroseconds() for _ in range(4)]
        assert 0.5 < time.monotonic() - began < 3
        assert sorted(set(times)) == times
        stopping = asyncio.create_task(planner.stop())
        refusal = await refused(statuses)
        await stopping
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert [info.reason for info in refusal.infos] == ["STOPPING"]


@pytest.mark.parametrize("seconds", [0.05, 61, -1, float("nan"), float("inf")])
async def test_an_interval_out_of_bounds_is_refused(settings: Settings, seconds: float) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(_watch(client, interval_seconds=seconds))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "interval_seconds" in refusal.violations


class CountingStore:
    """Counts how often a store is looked over."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.looks = 0

    def overview(self, *limits: int) -> object:
        self.looks += 1
        return self._store.overview(*limits)


@contextmanager
def _store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path / "ditplan.sqlite3")
    yield store
    store.close()


def test_watchers_share_one_look_at_the_store(tmp_path: Path) -> None:
    now = 100.0
    with _store(tmp_path) as store:
        counting = CountingStore(store)
        roster = Roster(3.0)
        forecast = Forecast(store, Notices())
        board = StatusBoard(counting, roster, Sessions(), forecast, lambda: now)  # type: ignore[arg-type]
        for _ in range(100):
            board.status(1.0)
        assert counting.looks == 1
        now += 1.0
        board.status(1.0)
        assert counting.looks == 2


def test_models_with_work_are_told_apart_up_to_a_bound(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        now = 100.0
        forecast = Forecast(store, Notices(), lambda: now)
        board = StatusBoard(store, Roster(3.0), Sessions(), forecast, lambda: now)
        for number in range(100):
            store.create(_new(number, f"model-{number:03}"))
        many = board.status(0.0).work
        for number in range(100):
            store.end_queued(f"{number:032x}", ended("CANCELLED", "unwanted"))
        now += 1.0
        after = board.status(0.0).work
    assert [each.model for each in many] == [f"model-{n:03}" for n in range(64)] + ["other"]
    assert [each.queued_seconds for each in many] == [10.0] * 64 + [360.0]
    # Of a model that had work it is said that there is none.
    assert [(each.model, each.queued_seconds) for each in after] == [
        (f"model-{n:03}", 0.0) for n in range(64)
    ]


def _new(number: int, model: str) -> NewGeneration:
    """Of ten steps."""
    return NewGeneration(
        generation=f"{number:032x}",
        request_id="",
        request_digest=b"",
        needs=Needs(f"needs of {model}", model, plan_pb2.Program()),
        spec=generation_pb2.GenerationSpec(),
        plan=plan_pb2.Plan(program=plan_pb2.Program(num_inference_steps=10)),
        diagnostics=(),
        queue_deadline=time.time() + 60,
    )


def _copy(store: SqliteStore, count: int) -> None:
    """Makes of one queued generation so many."""
    columns = [row["name"] for row in store._db.execute("PRAGMA table_info(generations)")]
    rest = ", ".join(set(columns) - {"number", "generation", "request_id"})
    store._db.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?) "
        f"INSERT INTO generations (generation, {rest}) "
        f"SELECT printf('%032x', n), {rest} FROM generations, n ORDER BY n",
        (count,),
    )


def test_a_long_queue_is_looked_over_in_milliseconds(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        store.create(_new(0, "model"))
        _copy(store, 20_000)
        began = time.process_time()
        overview = store.overview(100, 1000)
        seconds = time.process_time() - began
        began = time.process_time()
        [alike] = store.unfinished()
        counted = time.process_time() - began
    assert (alike.count, alike.steps_done) == (20_000, None)
    assert counted < 0.2, counted
    assert overview.queued == 20_000
    assert [work.generation for work in overview.head] == [f"{n:032x}" for n in range(100)]
    assert seconds < 0.2, seconds
