"""Deadlines end the work, not only the call that waits for it."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    Client,
    Executor,
    Run,
    create_request,
    refused,
    spec,
)
from tests.planner.service.planners import connected

FAILED = generation_pb2.GENERATION_STATE_FAILED
DAY = 86400.0


def within(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round((time.time() + seconds) * 1e9))
    return stamp


async def create(client: Client, deadline: Timestamp) -> generation_pb2.Generation:
    request = create_request(queue=True)
    request.deadline.CopyFrom(deadline)
    return (await client.generations.CreateGeneration(request)).generation


async def told_to_stop(run: Run) -> str:
    message = await run.receive()
    assert message is not None
    assert message.WhichOneof("message") == "cancel"
    return message.cancel.reason


def assert_expired(ended: generation_pb2.Generation) -> None:
    assert (ended.state, ended.failure.code) == (FAILED, "DEADLINE_EXCEEDED")
    assert "deadline" in ended.failure.message


async def test_queued_work_ends_at_its_deadline(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        deadline = within(0.4)
        created = await create(client, deadline)
        assert abs(created.deadline.ToNanoseconds() - deadline.ToNanoseconds()) < 1e4
        ended = await client.ended(created.name)
        late = time.time() - deadline.ToNanoseconds() / 1e9
        async with Executor(planner.address) as executor:
            assert await executor.acquire(wait=0.1) is None
    assert_expired(ended)
    assert 0 <= late < 0.5


async def test_running_work_is_stopped_at_its_deadline(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await create(client, within(0.4))
        run = await executor.start()
        await run.report(0, 2)
        assert "deadline" in await told_to_stop(run)
        await run.send(failure=dispatch_pb2.RunFailure(code="CANCELLED", retryable=True))
        ended = await client.ended(created.name)
    assert_expired(ended)
    assert ended.failure.step == 2


async def test_work_is_ended_though_its_executor_does_not_listen(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await create(client, within(0.3))
        run = await executor.start()
        began = time.monotonic()
        ended = await client.ended(created.name)
        assert time.monotonic() - began < 0.3 + 2 * settings.timing.cancel_window
        assert (await run.refusal()).code == grpc.StatusCode.ABORTED
    assert_expired(ended)


async def test_a_run_that_ends_behind_its_deadline_ends_in_vain(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await create(client, within(0.3))
        run = await executor.start()
        await run.report(0, 6)
        await executor.upload(run.lease, "image.png", b"picture")
        await told_to_stop(run)
        await run.complete()
        ended = await client.ended(created.name)
        assert_expired(ended)
        request = generation_pb2.ReadArtifactRequest(name=f"{created.name}/artifacts/image.png")
        refusal = await refused(client.generations.ReadArtifact(request))
        assert refusal.code == grpc.StatusCode.NOT_FOUND
    assert list((settings.data / "artifacts").rglob("*.png")) == []


async def test_a_cancel_before_the_deadline_stays_a_cancel(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await create(client, within(0.5))
        await executor.start()
        request = generation_pb2.CancelGenerationRequest(name=created.name)
        await client.generations.CancelGeneration(request)
        ended = await client.ended(created.name)
    assert ended.state == generation_pb2.GENERATION_STATE_CANCELLED


@pytest.mark.parametrize("running", [False, True])
async def test_the_deadline_of_the_call_ends_its_work(settings: Settings, running: bool) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as watcher,
        Executor(planner.address) as executor,
    ):
        async with Client(planner.address) as client:
            request = generation_pb2.GenerateRequest(spec=spec(), queue_without_executor=True)
            call = client.generations.Generate(request, timeout=0.6)
            name = (await call.read()).event.generation
            created = await watcher.get(name)
            left = created.deadline.ToNanoseconds() / 1e9 - time.time()
            if running:
                run = await executor.start()
            assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        if running:
            assert "deadline" in await told_to_stop(run)
            await run.send(failure=dispatch_pb2.RunFailure(code="CANCELLED"))
        ended = await watcher.ended(name)
    assert 0 < left < 0.6
    assert_expired(ended)


async def test_the_earlier_of_two_deadlines_counts(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        for field, call in ((0.3, 20.0), (20.0, 0.3)):
            request = generation_pb2.GenerateRequest(
                spec=spec(), queue_without_executor=True, deadline=within(field)
            )
            generate = client.generations.Generate(request, timeout=call)
            name = (await generate.read()).event.generation
            assert_expired(await asyncio.wait_for(client.ended(name), 2))


async def test_a_deadline_outlives_the_planner(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        running = await create(client, within(0.8))
        run = await executor.start()
        queued = await create(client, within(0.5))
    await asyncio.sleep(0.5)
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        assert_expired(await client.ended(queued.name))
        again = await executor.attach(run.lease, run.assignment)
        await again.attached()
        assert "deadline" in await told_to_stop(again)
        await again.send(failure=dispatch_pb2.RunFailure(code="CANCELLED"))
        assert_expired(await client.ended(running.name))


@pytest.mark.parametrize(
    ("deadline", "text"),
    [
        (Timestamp(), "in the past"),
        (within(-0.001), "in the past"),
        (within(31 * DAY), "at most 2592000 s"),
        (Timestamp(seconds=2**62), "is no time"),
        (Timestamp(seconds=-(2**63)), "is no time"),
        (Timestamp(seconds=4 * 10**9, nanos=-1), "is no time"),
    ],
)
async def test_a_deadline_that_makes_no_sense_is_refused(
    settings: Settings, deadline: Timestamp, text: str
) -> None:
    generate = generation_pb2.GenerateRequest(spec=spec(), deadline=deadline)
    create, check = create_request(queue=True), create_request(validate_only=True)
    create.deadline.CopyFrom(deadline)
    check.deadline.CopyFrom(deadline)
    async with Planner(settings) as planner, Client(planner.address) as client:
        for call in (
            client.generations.CreateGeneration(create),
            client.generations.CreateGeneration(check),
            client.generations.Generate(generate),
        ):
            refusal = await refused(call)
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
            assert set(refusal.violations) == {"deadline"}
            assert text in refusal.violations["deadline"]


async def test_a_repeated_request_keeps_its_first_deadline(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = create_request("mine", queue=True)
        request.deadline.CopyFrom(within(60))
        first = (await client.generations.CreateGeneration(request)).generation
        request.deadline.CopyFrom(within(-1))
        again = (await client.generations.CreateGeneration(request)).generation
        assert again == first
