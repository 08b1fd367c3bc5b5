"""Generations through replicas: as if the planner that dispatches had been called itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2, front_pb2
from ditplan.v1 import generation_pb2, monitor_pb2
from ditplan.v1.monitor_pb2_grpc import MonitorServiceStub
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from planner.service.server import Planner
from planner.settings import Settings
from tests.planner.front.fronts import front_of, until
from tests.planner.service.peers import (
    Client,
    Executor,
    Refusal,
    asking,
    create_request,
    refused,
    spec,
)

FORWARDED: list[MethodDescriptor] = [
    method
    for file in (generation_pb2, monitor_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
KEPT: list[MethodDescriptor] = [
    method
    for file in (dispatch_pb2, front_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
QUEUED = generation_pb2.GENERATION_STATE_QUEUED
RUNNING = generation_pb2.GENERATION_STATE_RUNNING
CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED
FAILED = generation_pb2.GENERATION_STATE_FAILED


def dialled(client: Client, method: MethodDescriptor) -> Any:
    up = "stream" if method.client_streaming else "unary"
    down = "stream" if method.server_streaming else "unary"
    path = f"/{method.containing_service.full_name}/{method.name}"
    return getattr(client.channel, f"{up}_{down}")(path)


async def outcome(call: Any) -> tuple[Any, ...]:
    """All that a client sees of a call."""
    messages = []
    try:
        if hasattr(call, "__aiter__"):
            messages += [message async for message in call]
        else:
            messages.append(await call)
    except grpc.aio.AioRpcError:
        pass
    return messages, await call.code(), await call.details(), list(await call.trailing_metadata())


@pytest.mark.parametrize("method", FORWARDED, ids=lambda method: method.name)
async def test_every_method_ends_as_it_does_without_a_replica(
    settings: Settings, method: MethodDescriptor
) -> None:
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address) as front,
        Client(planner.address) as direct,
        Client(front.address) as client,
    ):
        for message in (b"\xff\xff\xff", b"", b"\x0a\x03abc", b"\x09" + b"\xff" * 8):
            if method.name == "WatchStatus" and message[:1] not in (b"\xff", b"\x09"):
                continue
            through = await outcome(dialled(client, method)(message, timeout=5))
            assert through == await outcome(dialled(direct, method)(message, timeout=5))
            assert through[0] or through[3]


@pytest.mark.parametrize("method", KEPT, ids=lambda method: method.name)
async def test_executors_are_not_served(settings: Settings, method: MethodDescriptor) -> None:
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address) as front,
        Client(front.address) as client,
    ):
        request = iter([b""]) if method.client_streaming else b""
        refusal = await refused(dialled(client, method)(request, timeout=5))
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_run_is_followed_cancelled_and_read_through_any_replica(
    settings: Settings,
) -> None:
    picture = bytes(range(256)) * (3 << 12)
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address) as one,
        front_of(settings, planner.address) as two,
        Client(planner.address) as direct,
        Client(one.address) as a,
        Client(two.address) as b,
        Executor(planner.address) as executor,
        asking(executor),
    ):
        created = await a.create(request_id="mine")
        assert (await b.create(request_id="mine")).name == created.name
        watching = asyncio.create_task(b.watch(created.name))
        run = await executor.start()
        await run.report(0, len(run.steps))
        artifact = await executor.upload(run.lease, "image.png", picture)
        await run.complete()
        events = await watching
        assert events == await direct.watch(created.name)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert await a.watch(created.name, after=3) == events[3:]
        request = generation_pb2.ReadArtifactRequest(
            name=f"{created.name}/artifacts/{artifact.name}", offset=5
        )
        read = [r.data async for r in a.generations.ReadArtifact(request)]
        assert b"".join(read) == picture[5:]

        again = await a.create(queue=True)
        cancel = generation_pb2.CancelGenerationRequest(name=again.name)
        await b.generations.CancelGeneration(cancel)
        assert (await a.get(again.name)).state == CANCELLED
        status = MonitorServiceStub(a.channel).WatchStatus(
            monitor_pb2.WatchStatusRequest(once=True)
        )
        assert [s.executors[0].executor.name async for s in status] == ["exec-1"]


async def generating(client: Client, **options: Any) -> tuple[Any, str]:
    """An open Generate call, and the work that it is for."""
    request = generation_pb2.GenerateRequest(spec=spec(), queue_without_executor=True)
    call = client.generations.Generate(request, **options)
    return call, (await call.read()).event.generation


async def test_the_end_of_a_generate_call_cancels_its_work(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address) as front,
        Client(planner.address) as direct,
        Client(front.address) as client,
    ):
        call, name = await generating(client)
        assert (await direct.get(name)).state == QUEUED
        call.cancel()
        while (ended := await direct.get(name)).state == QUEUED:
            await asyncio.sleep(0.01)
        assert ended.state == CANCELLED

        call, name = await generating(client, timeout=0.6)
        assert (await refused(rest(call))).code is grpc.StatusCode.DEADLINE_EXCEEDED
        ended = await direct.ended(name)
        assert (ended.state, ended.failure.code) == (FAILED, "DEADLINE_EXCEEDED")


async def test_a_call_that_ends_before_its_first_event_cancels_its_work(
    settings: Settings,
) -> None:
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address) as front,
        Client(planner.address) as direct,
        Client(front.address) as client,
    ):
        request = generation_pb2.GenerateRequest(spec=spec(), queue_without_executor=True)
        for wait in (0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008):
            call = client.generations.Generate(request)
            await asyncio.sleep(wait)
            call.cancel()
        await asyncio.sleep(0.5)
        listed = await direct.generations.ListGenerations(generation_pb2.ListGenerationsRequest())
        assert {each.state for each in listed.generations} <= {CANCELLED}


async def test_work_outlives_the_replica_that_it_was_asked_of(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as direct:
        front = front_of(settings, planner.address)
        await front.start()
        async with Client(front.address) as client:
            call, name = await generating(client)
            watch = generation_pb2.WatchGenerationRequest(name=name)
            watching = client.generations.WatchGeneration(watch)
            await watching.read()
            health = health_pb2_grpc.HealthStub(client.channel).Watch(
                health_pb2.HealthCheckRequest()
            )
            assert (await health.read()).status == SERVING
            stopping = asyncio.create_task(front.stop())
            assert (await health.read()).status == NOT_SERVING
            for open_call in (call, watching):
                assert_refused(await refused(rest(open_call)), "STOPPING")
            await stopping
        await asyncio.sleep(0.2)
        assert (await direct.get(name)).state == QUEUED
        async with front_of(settings, planner.address) as other, Client(other.address) as client:
            watching = client.generations.WatchGeneration(watch)
            assert (await watching.read()).event.sequence == 1


async def rest(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def assert_refused(refusal: Refusal, reason: str) -> None:
    assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal.message
    assert [info.reason for info in refusal.infos] == [reason]
    assert refusal.retry_seconds


async def test_calls_end_with_when_to_come_again_while_nobody_dispatches(
    settings: Settings,
) -> None:
    planner = Planner(settings)
    await planner.start()
    async with front_of(settings, planner.address) as front, Client(front.address) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)

        async def status(service: str) -> Any:
            request = health_pb2.HealthCheckRequest(service=service)
            return (await stub.Check(request)).status

        for name in ("", "liveness", "ditplan.v1.GenerationService"):
            assert await status(name) == SERVING
        call, name = await generating(client)
        await planner.stop()
        assert_refused(await refused(rest(call)), "STOPPING")
        assert_refused(
            await refused(client.generations.CreateGeneration(create_request())),
            "DISPATCH_UNREACHABLE",
        )
        watch = generation_pb2.WatchGenerationRequest(name=name)
        assert_refused(
            await refused(client.generations.WatchGeneration(watch)), "DISPATCH_UNREACHABLE"
        )
        await until(lambda: front._executors.away)
        await asyncio.sleep(0.05)
        assert await status("") == SERVING
        assert await status("ditplan.v1.PlannerService") == SERVING
        assert await status("ditplan.v1.GenerationService") == NOT_SERVING
        assert await status("ditplan.v1.MonitorService") == NOT_SERVING

        async with Planner(replace(settings, listen=planner.address)):
            await until(lambda: not front._executors.away)
            await asyncio.sleep(0.05)
            assert await status("ditplan.v1.GenerationService") == SERVING
            assert (await client.get(name)).state == QUEUED


async def test_reflection_lists_what_a_replica_answers(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address) as front,
        Client(front.address) as client,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        [found] = [r async for r in stub.ServerReflectionInfo(iter([listing]))]
        assert {s.name for s in found.list_services_response.service} == {
            "ditplan.v1.PlannerService",
            "ditplan.v1.GenerationService",
            "ditplan.v1.MonitorService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
