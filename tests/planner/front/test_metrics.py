"""What Prometheus is told of a replica."""

from __future__ import annotations

import asyncio

from ditplan.v1 import generation_pb2, planner_pb2

from planner.service.server import Planner
from planner.settings import Settings
from tests.planner.front.fronts import front_of
from tests.planner.service.peers import MODEL, Client, refused
from tests.planner.service.prometheus import faults, scrape, value

COUNT = "ditplan_planner_rpc_seconds_count"
GENERATIONS = "ditplan.v1.GenerationService"


async def test_calls_are_counted_by_method_and_code_and_no_queue_is_told_of(
    settings: Settings,
) -> None:
    async with (
        Planner(settings) as planner,
        front_of(settings, planner.address, metrics_listen="127.0.0.1:0") as front,
        Client(front.address) as client,
    ):
        await client.create(queue=True)
        await refused(client.generations.GetGeneration(generation_pb2.GetGenerationRequest()))
        await refused(client.channel.unary_unary("/ditplan.dispatch.v1.DispatchService/X")(b""))
        await client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=MODEL))
        text = await asyncio.to_thread(scrape, front.metrics_address)
    created = {"service": GENERATIONS, "method": "CreateGeneration", "code": "OK"}
    assert value(text, COUNT, **created) == 1
    wrong = {"service": GENERATIONS, "method": "GetGeneration", "code": "INVALID_ARGUMENT"}
    assert value(text, COUNT, **wrong) == 1
    unknown = {"service": "unknown", "method": "unknown", "code": "UNIMPLEMENTED"}
    assert value(text, COUNT, **unknown) == 1
    assert value(text, "ditplan_planner_compile_seconds_count") == 1
    assert "ditplan_planner_build_info{" in text
    assert "queued_generations" not in text
    assert "ditplan_planner_executors" not in text
    assert faults(text) == []
