"""What watchers of a running generation cost: its planner, and each other."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ditplan.v1 import generation_pb2

from tests.bench.calls import channel, cpu_seconds, planner
from tests.bench.growth.curve import Curve, points, says
from tests.bench.report import Plot
from tests.bench.service.specs import ROOMY
from tests.e2e.processes import Service
from tests.planner.service.peers import Client, Executor, Run

WATCH = "/ditplan.v1.GenerationService/WatchGeneration"
BEFORE_STEPS = 3
"""Events before the first step: planned, queued, started."""
MESSAGES = 20_000
"""Of a burst, about: its steps are so many that this comes together."""
BURST = 400

Point = tuple[float, float, float]


class Watchers:
    """So many streams, whose messages are counted; ``told`` waits for a number at every one."""

    def __init__(self, count: int) -> None:
        self._missing = self._count = count
        self._goal = 0
        self._reached = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def watch(self, opened: Any, name: str) -> None:
        request = generation_pb2.WatchGenerationRequest(name=name).SerializeToString()
        call = opened.unary_stream(WATCH)
        self.tasks = [asyncio.create_task(self._follow(call(request))) for _ in range(self._count)]

    def expect(self, messages: int) -> None:
        """The next `told` is of so many messages of every stream, since its start."""
        self._goal, self._missing = messages, self._count
        self._reached.clear()

    async def told(self) -> None:
        async with asyncio.timeout(120):
            await self._reached.wait()

    async def _follow(self, stream: Any) -> None:
        read = 0
        async for _ in stream:
            read += 1
            if read == self._goal:
                self._missing -= 1
                if not self._missing:
                    self._reached.set()


@asynccontextmanager
async def watched(served: Service, name: str, count: int) -> AsyncIterator[Watchers]:
    """Watchers that have been told all that there is before the first step, less what starts it."""
    watchers = Watchers(count)
    async with channel(served.address) as opened:
        watchers.expect(BEFORE_STEPS - 1)
        watchers.watch(opened, name)
        await watchers.told()
        try:
            yield watchers
        finally:
            for task in watchers.tasks:
                task.cancel()
            await asyncio.gather(*watchers.tasks, return_exceptions=True)


def by_watchers(*, look: bool) -> tuple[Plot, Plot]:
    counts = points(1, 100 if look else 1000, 3 if look else 7)
    measured = asyncio.run(_measure_all(counts, 5 if look else 20))
    delays, costs, rates = (tuple(values) for values in zip(*measured, strict=True))
    last, cpu = (Curve(counts, values, "watchers", "watcher") for values in (delays, costs))
    passing = Curve(counts, rates, "watchers", "watcher", "steps/s")
    told = tuple(rate * count for rate, count in zip(rates, counts, strict=True))
    taken = Plot(
        "growth-watchers",
        "A step by its watchers",
        "watchers of the run",
        "ms",
        (
            last.series("from the report to the last watcher"),
            cpu.series("planner's processor time", dashed=True),
        ),
        f"{says('From report to the last watcher', last)} {says('The planner computes', cpu)}",
        log=True,
    )
    rate = Plot(
        "growth-watchers-rate",
        "Steps that every watcher is told in a second",
        "watchers of the run",
        "steps a second",
        (passing.series("steps a second"),),
        f"{passing.y[0]:,.0f} steps a second reach a single watcher, {passing.y[-1]:,.1f} reach "
        f"each of {counts[-1]:,}: {told[0]:,.0f} and {told[-1]:,.0f} messages a second. An "
        "executor sends what it has of steps ten times a second.",
        log=True,
    )
    return taken, rate


async def _measure_all(counts: tuple[int, ...], tries: int) -> list[Point]:
    """Each of a planner of its own; in one event loop, as grpc.aio still polls for an earlier."""
    found = []
    for count in counts:
        with planner(*ROOMY) as served:
            found.append(await _measure(served, count, tries))
    return found


async def _measure(served: Service, count: int, tries: int) -> Point:
    """Milliseconds to the last watcher, of the planner a step, and steps a second in a burst."""
    burst = min(BURST, max(5, MESSAGES // count))
    async with Client(served.address) as client, Executor(served.address) as executor:
        made = await client.create(queue=True, num_inference_steps=tries + burst)
        async with watched(served, made.name, count) as watchers:
            watchers.expect(BEFORE_STEPS)
            run = await executor.start()
            await watchers.told()
            cpu = cpu_seconds(served.process.pid)
            delays = [await _report(run, watchers, step, step + 1) for step in range(tries)]
            spent = (cpu_seconds(served.process.pid) - cpu) / tries * 1e3
            took = await _report(run, watchers, tries, tries + burst)
    return statistics.median(delays), spent, burst / took * 1e3


async def _report(run: Run, watchers: Watchers, first: int, end: int) -> float:
    """Milliseconds until all watchers know these steps, each of them a report of its own."""
    watchers.expect(BEFORE_STEPS + end)
    began = time.perf_counter()
    for step in range(first, end):
        await run.report(step, step + 1)
    await watchers.told()
    return (time.perf_counter() - began) * 1e3
