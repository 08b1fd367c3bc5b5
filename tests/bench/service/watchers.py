"""What watchers cost to whom nothing is told."""

from __future__ import annotations

import asyncio

from ditplan.v1 import generation_pb2, generation_pb2_grpc

from tests.bench.calls import channel, cpu_seconds, planner
from tests.bench.report import Figure, Table
from tests.bench.service.specs import ROOMY, create_request
from tests.e2e.processes import Service, memory_mib

IDLE_SECONDS = 2.0


def idle_watchers(*, count: int) -> Table:
    with planner(*ROOMY) as served:
        each, idle = asyncio.run(_watch(served, count))
    rows = ((f"{count:,} watchers", Figure(each, ".0f"), Figure(idle, ".1f", " %")),)
    headings = ("", "KiB of the planner's memory each", "of its core, together")
    return Table("Idle watchers", headings, rows)


async def _watch(served: Service, count: int) -> tuple[float, float]:
    process = served.process.pid
    async with channel(served.address) as opened:
        stub = generation_pb2_grpc.GenerationServiceStub(opened)
        made = await stub.CreateGeneration(create_request())
        watch = generation_pb2.WatchGenerationRequest(name=made.generation.name)
        before, calls = memory_mib(process), []
        for _ in range(count):
            call = stub.WatchGeneration(watch)
            # Planned and Queued.
            await call.read()
            await call.read()
            calls.append(call)
        each = (memory_mib(process) - before) * 1024 / count
        cpu = cpu_seconds(process)
        await asyncio.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(process) - cpu) / IDLE_SECONDS
        for call in calls:
            call.cancel()
    return each, idle * 100
