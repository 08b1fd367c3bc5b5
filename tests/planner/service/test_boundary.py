"""What no service foresaw: logged here, and told to no one outside."""

from __future__ import annotations

import grpc
from ditplan.v1 import planner_pb2, planner_pb2_grpc
from structlog.testing import capture_logs

from planner.access.gate import Gate
from planner.service.boundary import Boundary
from planner.settings import Limits
from tests.planner.service.peers import Client, refused


class Broken(planner_pb2_grpc.PlannerServiceServicer):
    async def CompilePlan(self, request, context):  # type: ignore[no-untyped-def]
        raise KeyError("password")


async def test_a_bug_is_logged_and_its_text_stays_inside() -> None:
    server = grpc.aio.server(interceptors=(Boundary(Gate(None, Limits()), 60.0),))
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
