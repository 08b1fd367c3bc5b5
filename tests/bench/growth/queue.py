"""What calls and runs take while more and more is queued at a planner process."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from ditplan.v1 import generation_pb2

from tests.bench.calls import (
    CLIENTS,
    CREATE,
    GET,
    answer,
    channel,
    cpu_seconds,
    echo,
    planner,
)
from tests.bench.growth.curve import Curve, points, says
from tests.bench.inputs import CONFIG
from tests.bench.report import Plot
from tests.bench.service.specs import ROOMY
from tests.e2e.processes import Service, memory_mib
from tests.planner.service.peers import Client, Executor, create_request

STEPS = 20
WARM_UP = 3
CREATED, GOT, LEASED = "CreateGeneration", "GetGeneration", "AcquireLease"
TOLD, SPENT = "a step, from report to watcher", "a step, planner's processor time"
ECHOED = "bare echo"
MEMORY = "memory"

Found = dict[str, list[float]]


def by_queue(*, look: bool) -> tuple[Plot, Plot]:
    counts = points(1, 300 if look else 10_000, 3 if look else 7)
    with planner(*ROOMY) as served:
        request = next(_creates("echo"))
        made = asyncio.run(answer(served.address, CREATE, request))
        with echo(made) as bare:
            found = asyncio.run(_grow(served, bare, counts, tries=3 if look else 15))
    memory = Curve(counts, tuple(found.pop(MEMORY)), "queued", "generation", "MiB")
    curves = {
        name: Curve(counts, tuple(times), "queued", "generation") for name, times in found.items()
    }
    calls = Plot(
        "growth-queue",
        "Calls and steps by what is queued",
        "generations queued",
        "ms",
        tuple(curve.series(name, dashed=name in (ECHOED, SPENT)) for name, curve in curves.items()),
        " ".join(says(name[0].upper() + name[1:], curve) for name, curve in curves.items()),
        log=True,
    )
    held = Plot(
        "growth-queue-memory",
        "The planner's memory by what is queued",
        "generations queued",
        "MiB",
        (memory.series("planner"),),
        says("Memory of the planner", memory),
        log=True,
    )
    return calls, held


def _creates(prefix: str) -> Iterator[bytes]:
    config = CONFIG.read_text()
    for number in count():
        request = create_request(
            f"{prefix}-{number}", queue=True, config=config, num_inference_steps=STEPS
        )
        yield request.SerializeToString()


async def _grow(served: Service, bare: Service, counts: tuple[int, ...], tries: int) -> Found:
    """The medians at every length of the queue, of which one is there already."""
    found: Found = {}
    creates, queued = _creates("queued"), 1
    async with channel(served.address) as opened, channel(bare.address) as echoed:
        create = opened.unary_unary(CREATE)
        async with _measuring(served) as measured:
            # The first ones find cold pages.
            for _ in range(WARM_UP):
                await _create_and_get(opened, echoed, next(creates), {})
                await measured({})
        for length in counts:
            await _fill(create, creates, length - queued)
            queued = length
            here: Found = {}
            async with _measuring(served) as measured:
                for _ in range(tries):
                    await _create_and_get(opened, echoed, next(creates), here)
                    await measured(here)
            here[MEMORY] = [memory_mib(served.process.pid)]
            for name, values in here.items():
                found.setdefault(name, []).append(statistics.median(values))
    return found


async def _fill(create: Any, creates: Iterator[bytes], missing: int) -> None:
    turns = iter(range(missing))

    async def client() -> None:
        for _ in turns:
            await create(next(creates))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _create_and_get(opened: Any, echoed: Any, create: bytes, here: Found) -> None:
    """One more is queued."""
    made = await _timed(here, CREATED, opened.unary_unary(CREATE)(create))
    generation = generation_pb2.CreateGenerationResponse.FromString(made).generation
    get = generation_pb2.GetGenerationRequest(name=generation.name).SerializeToString()
    await _timed(here, GOT, opened.unary_unary(GET)(get))
    await _timed(here, ECHOED, echoed.unary_unary(CREATE)(create))


async def _timed(here: Found, name: str, call: Any) -> Any:
    began = time.perf_counter()
    answered = await call
    here.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    return answered


@asynccontextmanager
async def _measuring(served: Service) -> AsyncIterator[Any]:
    """What runs the next of the queue to its end, step by step, while one client watches."""
    process = served.process.pid
    async with Client(served.address) as client, Executor(served.address) as executor:

        async def run(here: Found) -> None:
            lease = await _timed(here, LEASED, executor.acquire())
            run = await executor.attach(lease)
            await run.attached()
            watch = generation_pb2.WatchGenerationRequest(name=lease.generation)
            events = client.generations.WatchGeneration(watch)
            while not (await events.read()).event.HasField("started"):
                pass
            cpu = cpu_seconds(process)
            for step in range(STEPS):
                began = time.perf_counter()
                await run.report(step, step + 1)
                await events.read()
                here.setdefault(TOLD, []).append((time.perf_counter() - began) * 1e3)
            here.setdefault(SPENT, []).append((cpu_seconds(process) - cpu) / STEPS * 1e3)
            await executor.upload(lease, "image.png", b"picture")
            await run.complete()
            events.cancel()

        yield run
