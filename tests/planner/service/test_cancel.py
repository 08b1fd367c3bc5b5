"""Cancelling work: queued, running, and with the call that asked for it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import Client, Executor, Run, create_request, spec
from tests.planner.service.planners import connected

CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED


async def cancel(client: Client, name: str) -> generation_pb2.Generation:
    request = generation_pb2.CancelGenerationRequest(name=name)
    return (await client.generations.CancelGeneration(request)).generation


async def test_queued_work_is_cancelled_at_once_and_only_once(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = await client.create(queue=True)
        assert (await cancel(client, created.name)).state == CANCELLED
        first = await client.watch(created.name)
        assert (await cancel(client, created.name)).state == CANCELLED
        assert await client.watch(created.name) == first
        async with Executor(planner.address) as executor:
            assert await executor.acquire(wait=0.1) is None


async def test_running_work_is_cancelled_through_its_executor(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        await run.report(0, 2)
        await cancel(client, created.name)
        message = await run.receive()
        assert message is not None
        assert message.WhichOneof("message") == "cancel"
        await run.send(failure=dispatch_pb2.RunFailure(code="CANCELLED", retryable=True))
        done = await run.receive()
        assert done is not None
        assert done.WhichOneof("message") == "done"
        ended = await client.ended(created.name)
    assert ended.state == CANCELLED
    assert ended.failure.code == "CANCELLED"
    assert ended.failure.step == 2


async def test_running_work_is_told_to_stop_only_once(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        first = await cancel(client, created.name)
        assert await cancel(client, created.name) == first
        messages = [await run.receive()]
        await run.send(failure=dispatch_pb2.RunFailure(code="CANCELLED", retryable=True))
        messages.append(await run.receive())
        assert [m.WhichOneof("message") for m in messages if m] == ["cancel", "done"]
        ended = await cancel(client, created.name)
    assert ended.state == CANCELLED


async def test_a_cancel_does_not_wait_for_a_model_that_is_loading(settings: Settings) -> None:
    config = "quantize_config:\n  quant_type: int8_weight_only\n"
    async with connected(settings, allow_reload=True) as (client, executor):
        created = await client.create(config=config)
        run = await executor.start()
        began = time.monotonic()
        await cancel(client, created.name)
        beating = asyncio.create_task(beat(run))
        ended = await client.ended(created.name)
        assert time.monotonic() - began < 2 * settings.timing.cancel_window
        # A beat that meets the end fails in gRPC itself: whoever comes back hears why.
        await run.refusal()
        beating.cancel()
        again = await executor.attach(run.lease)
        assert (await again.refusal()).code == grpc.StatusCode.ABORTED
    assert ended.state == CANCELLED


async def beat(run: Run) -> None:
    """As an executor does that is busy with something else."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await run.send(heartbeat=dispatch_pb2.Heartbeat())
            await asyncio.sleep(0.1)


async def test_an_executor_that_does_not_listen_is_fenced(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        began = time.monotonic()
        await cancel(client, created.name)
        await run.report(0, 1)
        ended = await client.ended(created.name)
        assert time.monotonic() - began < 2 * settings.timing.cancel_window
        assert (await run.refusal()).code == grpc.StatusCode.ABORTED
    assert ended.state == CANCELLED


async def test_a_cancel_reaches_an_executor_that_comes_back(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        run.call.cancel()
        await cancel(client, created.name)
        again = await executor.attach(run.lease, run.assignment)
        await again.attached()
        message = await again.receive()
        assert message is not None
        assert message.WhichOneof("message") == "cancel"


async def test_a_run_that_was_faster_than_its_cancel_succeeds(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        await run.report(0, 6)
        await cancel(client, created.name)
        await run.receive()
        await run.complete()
        ended = await client.ended(created.name)
    assert ended.state == generation_pb2.GENERATION_STATE_SUCCEEDED


@pytest.mark.parametrize("way", ["cancel", "disconnect"])
async def test_ending_the_generate_call_cancels_its_work(settings: Settings, way: str) -> None:
    async with Planner(settings) as planner, Client(planner.address) as watcher:
        async with Client(planner.address) as client:
            request = generation_pb2.GenerateRequest(
                request_id="mine", spec=spec(), queue_without_executor=True
            )
            call = client.generations.Generate(request)
            planned = (await call.read()).event
            assert (await call.read()).event.WhichOneof("event") == "queued"
            if way == "cancel":
                call.cancel()
        ended = await watcher.ended(planned.generation)
    assert ended.state == CANCELLED


async def test_generate_ends_with_the_finished_generation(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        serving = asyncio.create_task(executor.serve_one())
        await asyncio.sleep(0.2)
        request = generation_pb2.GenerateRequest(spec=spec())
        events = [r.event async for r in client.generations.Generate(request)]
        await serving
    assert events[0].HasField("planned")
    assert events[-1].finished.state == generation_pb2.GENERATION_STATE_SUCCEEDED


async def test_a_dropped_watch_does_not_drop_the_work(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = await client.create(queue=True)
        request = generation_pb2.WatchGenerationRequest(name=created.name)
        call = client.generations.WatchGeneration(request)
        await call.read()
        call.cancel()
        await asyncio.sleep(0.1)
        found = await client.get(created.name)
        assert found.state == generation_pb2.GENERATION_STATE_QUEUED


async def test_a_repeated_request_returns_what_it_made(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        first = await client.create(request_id="mine", queue=True)
        again = await client.create(request_id="mine")
        assert again == first, "although no executor could serve it now"
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await client.generations.CreateGeneration(
                create_request("mine", queue=True, prompt="another")
            )
        assert refusal.value.code() == grpc.StatusCode.ALREADY_EXISTS
