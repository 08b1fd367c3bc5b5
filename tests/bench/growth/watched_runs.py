"""Whether a run of an executor takes longer when more watch it."""

from __future__ import annotations

import asyncio
import statistics

from ditplan.v1 import generation_pb2

from tests.bench.calls import cpu_seconds, executor, planner
from tests.bench.growth.curve import Curve, points, says
from tests.bench.growth.watchers import watched
from tests.bench.report import Plot
from tests.bench.service.specs import ROOMY, create_request
from tests.e2e.processes import Service
from tests.planner.service.peers import Client

HELD_STEPS = 1000
"""Of a run that keeps the executor busy until all watch the next; then it is cancelled."""


def watched_runs(*, look: bool) -> Plot:
    counts = points(1, 100 if look else 1000, 2 if look else 6)
    with planner(*ROOMY) as served, executor(served) as worker:
        found = asyncio.run(_measure(served, worker, counts, rounds=1 if look else 5))
    spent, wall = (
        Curve(counts, tuple(statistics.median(v) for v in values), "watchers", "watcher")
        for values in zip(*found, strict=True)
    )
    return Plot(
        "growth-watchers-run",
        "A run of the demo model, 28 steps, by its watchers",
        "watchers of the run",
        "ms",
        (
            spent.series("executor's processor time"),
            wall.series("denoising, by the clock", dashed=True),
        ),
        f"{says('The executor computes', spent)} {says('By the clock it denoises', wall)} "
        "Planner and watchers run on the same cores, so that the clock sees them, too.",
        log=True,
    )


async def _measure(
    served: Service, worker: Service, counts: tuple[int, ...], rounds: int
) -> list[tuple[list[float], list[float]]]:
    """Of every count: milliseconds of the executor's processor, and of denoising, in each round."""
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in counts]
    async with Client(served.address) as client:
        # The first run finds cold pages.
        await _run(client, served, worker, 1)
        for _ in range(rounds):
            for count, (spent, wall) in zip(counts, found, strict=True):
                cpu, seconds = await _run(client, served, worker, count)
                spent.append(cpu * 1e3)
                wall.append(seconds * 1e3)
    return found


async def _run(client: Client, served: Service, worker: Service, count: int) -> tuple[float, float]:
    stub = client.generations
    held = (await stub.CreateGeneration(create_request(num_inference_steps=HELD_STEPS))).generation
    await _started(client, held.name)
    made = (await stub.CreateGeneration(create_request())).generation
    async with watched(served, made.name, count):
        await stub.CancelGeneration(generation_pb2.CancelGenerationRequest(name=held.name))
        await client.ended(held.name)
        before = cpu_seconds(worker.process.pid)
        record = (await client.ended(made.name)).record
        return cpu_seconds(worker.process.pid) - before, record.denoise_seconds


async def _started(client: Client, name: str) -> None:
    watch = generation_pb2.WatchGenerationRequest(name=name)
    events = client.generations.WatchGeneration(watch)
    async for response in events:
        if response.event.HasField("step"):
            break
    events.cancel()
