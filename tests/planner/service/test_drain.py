"""A planner that stops: unready first, then every call ends with when to come again."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import grpc
from ditplan.v1 import generation_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    Client,
    Executor,
    Refusal,
    asking,
    create_request,
    refused,
    spec,
)
from tests.planner.service.test_process import serving

MIB = 1 << 20


def assert_stopping(refusal: Refusal) -> None:
    assert refusal.code == grpc.StatusCode.UNAVAILABLE, refusal.message
    assert [info.reason for info in refusal.infos] == ["STOPPING"]
    assert refusal.retry_seconds


async def test_every_open_call_ends_with_when_to_come_again(settings: Settings) -> None:
    planner = Planner(settings)
    await planner.start()
    async with (
        Client(planner.address) as client,
        Executor(planner.address) as runs,
        Executor(planner.address, "exec-2", model="other") as waits,
        asking(runs, waits) as [_, waiting],
    ):
        created = await client.create()
        run = await runs.start()
        watch = client.generations.WatchGeneration(
            generation_pb2.WatchGenerationRequest(name=created.name)
        )
        generate = client.generations.Generate(
            generation_pb2.GenerateRequest(spec=spec(), queue_without_executor=True)
        )
        responses = aiter(generate)
        await anext(responses)
        health = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        began = time.monotonic()
        stopping = asyncio.create_task(planner.stop())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for call in (watch, responses, waiting):
            assert_stopping(await refused(call))
        assert_stopping(await run.refusal())
        assert time.monotonic() - began < settings.timing.stop_grace
        await stopping
        assert time.monotonic() - began < 2 * settings.timing.stop_grace


async def test_who_watches_health_is_told_though_another_has_left(settings: Settings) -> None:
    planner = Planner(settings)
    await planner.start()
    async with Client(planner.address) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        left, stays = (stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2))
        for watch in (left, stays):
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        left.cancel()
        await asyncio.sleep(0.2)
        stopping = asyncio.create_task(planner.stop())
        assert (await stays.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping


async def rest(call: Any, read: bytearray) -> None:
    while (response := await call.read()) is not grpc.aio.EOF:
        read += response.data


async def test_a_download_that_is_not_read_ends_with_the_grace(settings: Settings) -> None:
    planner = Planner(settings)
    await planner.start()
    picture = bytes(range(256)) * (16 * MIB // 256)
    async with Client(planner.address) as client, Executor(planner.address) as executor:
        created = await client.create(queue=True)
        run = await executor.start()
        await run.report(0, len(run.steps))
        await executor.upload(run.lease, "image.png", picture)
        await run.complete()
        request = generation_pb2.ReadArtifactRequest(name=f"{created.name}/artifacts/image.png")
        call = client.generations.ReadArtifact(request)
        read = bytearray((await call.read()).data)
        await asyncio.wait_for(planner.stop(), 3 * settings.timing.stop_grace)
        ended = await refused(rest(call, read))
        assert ended.code == grpc.StatusCode.UNAVAILABLE
    assert len(read) < len(picture)
    async with Planner(settings) as planner, Client(planner.address) as client:
        request.offset = len(read)
        async for response in client.generations.ReadArtifact(request):
            read += response.data
    assert read == picture


async def test_new_work_is_refused_while_the_planner_stops(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, address):
        async with Client(address) as client:
            # An idle health watch keeps the grace open.
            health = health_pb2_grpc.HealthStub(client.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            request: Any = create_request("mine", queue=True)
            created = (await client.generations.CreateGeneration(request)).generation
            process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            # Whoever is connected by then is told, whoever comes later finds nobody.
            refusal = await refused(client.generations.CreateGeneration(create_request(queue=True)))
            assert refusal.code == grpc.StatusCode.UNAVAILABLE
            watch.cancel()
            assert process.wait(timeout=12) == 0
    with serving(tmp_path) as (process, address):
        async with Client(address) as client:
            again = (await client.generations.CreateGeneration(request)).generation
            assert again == created
