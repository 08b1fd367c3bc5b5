"""A planner goes and another comes on the same data; what was accepted goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from ditplan.v1 import generation_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planner.listening.sockets import ListenError
from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    ADAPTIVE_CONFIG,
    Client,
    Executor,
    asking,
    refused,
    spec,
)
from tests.planner.service.planners import connected


async def test_a_leased_run_is_finished_through_the_next_planner(settings: Settings) -> None:
    brief = replace(settings, timing=replace(settings.timing, lease_ttl=0.5))
    async with (
        Planner(brief) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor),
    ):
        created = await client.create(config=ADAPTIVE_CONFIG)
        run = await executor.start()
        await run.report(0, 2)
        await executor.upload(run.lease, "image.png", b"picture")

    # Longer than the lease: that no planner was there does not count against its holder.
    await asyncio.sleep(0.6)
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        again = await executor.attach(run.lease, run.assignment)
        await again.attached()
        assert again.next_step == 2
        await again.report(2, 6)
        await again.complete()
        events = await client.watch(created.name)
    assert [e.step.step for e in events if e.HasField("step")] == list(range(6))
    finished = events[-1].finished
    assert finished.state == generation_pb2.GENERATION_STATE_SUCCEEDED
    assert [artifact.name for artifact in finished.artifacts] == ["image.png"]


async def test_an_executor_that_does_not_come_back_is_lost(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        await executor.start()
    async with Planner(settings) as planner, Client(planner.address) as client:
        found = await client.get(created.name)
        assert found.state == generation_pb2.GENERATION_STATE_RUNNING
        ended = await client.ended(created.name)
    assert ended.failure.code == "UNAVAILABLE"


async def test_a_planner_that_stops_ends_calls_and_keeps_work(settings: Settings) -> None:
    planner = Planner(settings)
    await planner.start()
    async with Client(planner.address) as client, Executor(planner.address) as executor:
        schnell = spec(model="black-forest-labs/FLUX.1-schnell")
        request = generation_pb2.GenerateRequest(spec=schnell, queue_without_executor=True)
        generate = client.generations.Generate(request)
        responses = aiter(generate)
        name = (await anext(responses)).event.generation
        await anext(responses)
        acquire = asyncio.create_task(executor.acquire(wait=20))
        await asyncio.sleep(0.2)
        await asyncio.wait_for(planner.stop(), 2 * settings.timing.stop_grace)
        for call in (anext(responses), acquire):
            assert (await refused(call)).code == grpc.StatusCode.UNAVAILABLE
    async with Planner(settings) as planner, Client(planner.address) as client:
        assert (await client.get(name)).state == generation_pb2.GENERATION_STATE_QUEUED


async def test_a_taken_port_is_an_error_with_words(settings: Settings, tmp_path: Path) -> None:
    async with Planner(settings) as planner:
        other = Planner(Settings(data=tmp_path / "other", listen=planner.address))
        with pytest.raises(ListenError, match=planner.address):
            await other.start()
        await other.stop()


async def test_a_socket_file_serves_as_an_address(settings: Settings, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'planner.sock'}"
    async with Planner(replace(settings, listen=address)) as planner:
        assert planner.address == address
        async with Client(address) as client:
            await client.create(queue=True)


async def test_health_and_reflection_answer(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        for name in ("", "liveness", "ditplan.v1.GenerationService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = await refused(stub.Check(health_pb2.HealthCheckRequest(service="x")))
        assert unknown.code == grpc.StatusCode.NOT_FOUND
