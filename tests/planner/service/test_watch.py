"""Watching: every event once, from wherever the watcher left off."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import executor_pb2, generation_pb2

from planner.service.server import Planner, Settings
from planner.store.sqlite import SqliteStore
from tests.planner.service.peers import (
    ADAPTIVE_CONFIG,
    Client,
    Executor,
    refused,
)
from tests.planner.service.planners import connected
from tests.planner.service.test_process import serving
from tests.planner.store.writer import new

MOST_BYTES_A_WATCHER = 1 << 20
LATER = 2e9


@pytest.mark.parametrize("after", [0, 1, 4, 9, 10])
async def test_a_watch_goes_on_after_a_sequence(settings: Settings, after: int) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(queue=True, config=ADAPTIVE_CONFIG)
        await executor.serve_one()
        events = await client.watch(created.name, after=after)
    assert [event.sequence for event in events] == list(range(after + 1, 11))


async def test_events_arrive_while_they_happen(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        request = generation_pb2.WatchGenerationRequest(name=created.name, after_sequence=2)
        watch = client.generations.WatchGeneration(request)
        assert (await watch.read()).event.WhichOneof("event") == "started"
        run = await executor.start()
        for step in range(6):
            await run.report(step, step + 1)
            event = (await asyncio.wait_for(watch.read(), 1)).event
            assert event.step.step == step
        await run.complete()
        assert (await watch.read()).event.HasField("finished")


async def test_what_many_watch_is_read_once_for_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchers, steps, reads, read = 30, 6, [], SqliteStore.events

    def events(store: SqliteStore, generation: str, after: int, limit: int) -> Any:
        reads.append(after)
        return read(store, generation, after, limit)

    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        request = generation_pb2.WatchGenerationRequest(name=created.name, after_sequence=3)
        watches = [client.generations.WatchGeneration(request) for _ in range(watchers)]
        await run.report(0, 1)
        for watch in watches:
            await watch.read()
        monkeypatch.setattr(SqliteStore, "events", events)
        for step in range(1, steps):
            await run.report(step, step + 1)
            told = [(await watch.read()).event.step.step for watch in watches]
            assert told == [step] * watchers
    assert len(reads) < watchers * (steps - 1) / 3


async def test_a_slow_watcher_holds_no_one_up_and_misses_nothing(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create(num_inference_steps=1000)
        request = generation_pb2.WatchGenerationRequest(name=created.name)
        slow = client.generations.WatchGeneration(request)
        await slow.read()
        run = await executor.start()
        await run.report(0, 500)
        await run.report(500, 1000)
        await run.complete()
        sequences = [1]
        while (response := await slow.read()) and not response.event.HasField("finished"):
            sequences.append(response.event.sequence)
    assert sequences == list(range(1, 1004))


@pytest.mark.parametrize("ended", [False, True])
async def test_a_sequence_of_no_event_is_refused(settings: Settings, ended: bool) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(queue=True)
        last = 2
        if ended:
            await executor.serve_one()
            last = 10
        for after in (last + 1, 2**63, 2**64 - 1):
            request = generation_pb2.WatchGenerationRequest(name=created.name, after_sequence=after)
            refusal = await refused(client.generations.WatchGeneration(request))
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
            assert f"the last one so far is {last}" in refusal.violations["after_sequence"]


async def test_a_watcher_that_comes_back_gets_each_later_event_once(settings: Settings) -> None:
    """Dropped after every event, and with another planner in between."""
    seen: list[int] = []

    async def look(address: str, count: int) -> None:
        for _ in range(count):
            async with Client(address) as client:
                after = seen[-1] if seen else 0
                request = generation_pb2.WatchGenerationRequest(
                    name=created.name, after_sequence=after
                )
                call = client.generations.WatchGeneration(request)
                seen.append((await asyncio.wait_for(call.read(), 5)).event.sequence)

    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        await run.report(0, 2)
        await look(client.address, 5)
    # However long a busy machine takes until the executor is back.
    patient = replace(settings, timing=replace(settings.timing, restart_window=20.0))
    async with Planner(patient) as planner, Executor(planner.address) as executor:
        again = await executor.attach(run.lease, run.assignment)
        await again.attached()
        await again.report(2, 6)
        await again.complete()
        await look(planner.address, 3)
    async with Planner(settings) as planner:
        await look(planner.address, 2)
    assert seen == list(range(1, 11))


async def test_watchers_that_never_read_cost_little(tmp_path: Path) -> None:
    """A thousand steps of so many ops are several MiB once they are read into memory."""
    watchers, steps, ops = 40, 1000, 100
    store = SqliteStore(tmp_path / "ditplan.sqlite3")
    store.create(new("0123456789abcdef"))
    lease = store.take(["r"], executor_pb2.Executor(name="e"), LATER)
    assert lease is not None
    outcomes = [generation_pb2.OpOutcome(kind=2, residual_diff=0.1)] * ops
    reports = [generation_pb2.StepOutcome(step=step, ops=outcomes) for step in range(steps)]
    store.add_steps(lease, reports, LATER)
    store.close()
    request = generation_pb2.WatchGenerationRequest(name="generations/0123456789abcdef")
    with serving(tmp_path) as (process, address):
        async with Client(address) as client, Client(address) as reader:
            call = reader.generations.WatchGeneration(request)
            sequences = [(await call.read()).event.sequence for _ in range(steps + 3)]
            assert sequences == list(range(1, steps + 4))
            before = resident_bytes(process.pid)
            calls = [client.generations.WatchGeneration(request) for _ in range(watchers)]
            await asyncio.gather(*(call.read() for call in calls))
            await asyncio.sleep(0.5)
            grown = (resident_bytes(process.pid) - before) / watchers
    print(f"{grown / 1024:.0f} KiB a watcher")
    assert grown < MOST_BYTES_A_WATCHER


def resident_bytes(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
