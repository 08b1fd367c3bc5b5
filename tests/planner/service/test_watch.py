"""Watching: every event once, from wherever the watcher left off."""

from __future__ import annotations

import asyncio

import pytest
from ditplan.v1 import generation_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import ADAPTIVE_CONFIG, Client, Executor, asking


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
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor) as [acquiring],
    ):
        created = await client.create()
        request = generation_pb2.WatchGenerationRequest(name=created.name, after_sequence=2)
        watch = client.generations.WatchGeneration(request)
        assert (await watch.read()).event.WhichOneof("event") == "started"
        run = await executor.attach(await acquiring)
        await run.attached()
        for step in range(6):
            await run.report(step, step + 1)
            event = (await asyncio.wait_for(watch.read(), 1)).event
            assert event.step.step == step
        await run.complete()
        assert (await watch.read()).event.HasField("finished")


async def test_a_slow_watcher_holds_no_one_up_and_misses_nothing(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor) as [acquiring],
    ):
        created = await client.create(num_inference_steps=1000)
        request = generation_pb2.WatchGenerationRequest(name=created.name)
        slow = client.generations.WatchGeneration(request)
        await slow.read()
        run = await executor.attach(await acquiring)
        await run.attached()
        await run.report(0, 500)
        await run.report(500, 1000)
        await run.complete()
        sequences = [1]
        while (response := await slow.read()) and not response.event.HasField("finished"):
            sequences.append(response.event.sequence)
    assert sequences == list(range(1, 1004))
