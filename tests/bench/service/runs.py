"""What the service adds to a run of the demo model, and how fast events are told."""

from __future__ import annotations

import asyncio
import time

from ditplan.v1 import generation_pb2, generation_pb2_grpc

from tests.bench.calls import CLIENTS, channel, cpu_seconds, executor, planner
from tests.bench.report import Claim, Figure, Table
from tests.bench.service.specs import ROOMY, spec
from tests.e2e.processes import Service


def runs(*, rounds: int, seconds: float) -> tuple[Table, Claim]:
    with planner(*ROOMY) as served, executor(served):
        run, added, name = asyncio.run(_added(served, rounds))
        told, by_core = asyncio.run(_told(served, name, seconds))
    share = Figure.of([100 * more / run for more, run in zip(added, run, strict=True)], ".1f", " %")
    rows = (
        ("a run, as the executor records it", Figure.of(run, ".0f", " ms")),
        ("added, from the call to its last event", Figure.of(added, ".1f", " ms")),
        ("added, of the run", share),
        (f"events told to {CLIENTS} watchers", Figure(told, ".0f", "/s")),
        ("events told for each second of the planner's core", Figure(by_core, ".0f")),
    )
    claim = Claim(
        "added to a run by the service, from the call to its last event",
        Figure.of(added, ".0f", " ms"),
        share,
        "that of a run of the demo model",
    )
    return Table("Runs of the demo model, 28 steps", ("", "measured"), rows), claim


async def _added(served: Service, rounds: int) -> tuple[list[float], list[float], str]:
    """Milliseconds that runs take, what is added to each, and the name of the last."""
    run, added, name = [], [], ""
    async with channel(served.address) as opened:
        stub = generation_pb2_grpc.GenerationServiceStub(opened)
        for seed in range(rounds + 1):
            began = time.perf_counter()
            request = generation_pb2.GenerateRequest(spec=spec(seed=seed))
            async for response in stub.Generate(request):
                event = response.event
            took = time.perf_counter() - began
            ran = event.finished.record.total_seconds
            name = event.generation
            # The first one finds cold pages.
            if seed:
                run.append(ran * 1e3)
                added.append((took - ran) * 1e3)
    return run, added, name


async def _told(served: Service, name: str, seconds: float) -> tuple[float, float]:
    """Events a second, and for each second of the planner's core, of a run that has ended."""
    watch = generation_pb2.WatchGenerationRequest(name=name)

    async def follow(stub: generation_pb2_grpc.GenerationServiceStub) -> int:
        done = 0
        while time.perf_counter() < end:
            async for _ in stub.WatchGeneration(watch):
                done += 1
        return done

    async with channel(served.address) as opened:
        stub = generation_pb2_grpc.GenerationServiceStub(opened)
        cpu, began = cpu_seconds(served.process.pid), time.perf_counter()
        end = began + seconds
        told = sum(await asyncio.gather(*(follow(stub) for _ in range(CLIENTS))))
        took = time.perf_counter() - began
        return told / took, told / (cpu_seconds(served.process.pid) - cpu)
