"""What no service foresaw: logged here, and told to no one outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
from ditplan.v1 import generation_pb2, generation_pb2_grpc, planner_pb2, planner_pb2_grpc
from structlog.testing import capture_logs

from planner.access.gate import Gate
from planner.listening.boundary import Boundary
from planner.service.server import Planner
from planner.settings import Limits, Settings
from tests.planner.service.peers import Client, Executor, refused


class Broken(planner_pb2_grpc.PlannerServiceServicer):
    async def CompilePlan(self, request, context):  # type: ignore[no-untyped-def]
        raise KeyError("password")


async def test_a_bug_is_logged_and_its_text_stays_inside() -> None:
    server = grpc.aio.server(interceptors=(Boundary(Gate(None, Limits()), 60.0, 1 << 20),))
    planner_pb2_grpc.add_PlannerServiceServicer_to_server(Broken(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with capture_logs() as logs:
            async with Client(f"127.0.0.1:{port}") as client:
                call = client.planner.CompilePlan(planner_pb2.CompilePlanRequest())
                refusal = await refused(call)
    finally:
        await server.stop(None)
    assert refusal.code == grpc.StatusCode.INTERNAL
    assert [info.reason for info in refusal.infos] == ["INTERNAL"]
    assert "password" not in refusal.message
    assert [entry["event"] for entry in logs] == ["call_failed"]


async def test_a_client_that_refuses_what_comes_is_no_bug(settings: Settings) -> None:
    picture = bytes(6 << 20)
    large = replace(settings, limits=Limits(chunk_bytes=len(picture)))
    async with Planner(large) as planner, Client(planner.address) as client:
        async with Executor(planner.address) as executor:
            created = await client.create(queue=True)
            run = await executor.start()
            await run.report(0, len(run.steps))
            await executor.upload(run.lease, "image.png", picture)
            await run.complete()
        request = generation_pb2.ReadArtifactRequest(name=f"{created.name}/artifacts/image.png")
        small = [("grpc.max_receive_message_length", 1000)]
        with capture_logs() as logs:
            async with grpc.aio.insecure_channel(planner.address, small) as channel:
                stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
                for _ in range(20):
                    refusal = await refused(stub.ReadArtifact(request))
                    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            await client.get(created.name)
    assert [entry for entry in logs if entry["event"] == "call_failed"] == []
