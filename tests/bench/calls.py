"""Planners, executors and echoes to be called, and what calls take."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.bench.inputs import DEMO
from tests.e2e.processes import Service

COMPILE = "/ditplan.v1.PlannerService/CompilePlan"
CREATE = "/ditplan.v1.GenerationService/CreateGeneration"
GET = "/ditplan.v1.GenerationService/GetGeneration"
SERVE = ("-m", "planner", "serve", "planner")
CLIENTS = 8


@contextmanager
def planner(*options: str) -> Iterator[Service]:
    """With a data directory of its own, which goes with it."""
    with tempfile.TemporaryDirectory() as data, _running(*SERVE, "--data", data, *options) as found:
        yield found


@contextmanager
def replica(of: Service) -> Iterator[Service]:
    with _running(*SERVE, "--dispatch", of.address) as found:
        yield found


@contextmanager
def executor(of: Service) -> Iterator[Service]:
    """With the demo model."""
    execute = ("-m", "executor", "--planner", of.address, "--model", str(DEMO))
    with _running(*execute) as found:
        yield found


@contextmanager
def echo(answer: bytes) -> Iterator[Service]:
    """A bare server that answers every call with these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(answer)
        file.flush()
        with _running("-m", "tests.bench.echo", file.name) as found:
            yield found


@contextmanager
def _running(*arguments: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as name:
        service = Service(Path(name), "service", *arguments)
        try:
            service.await_ready()
            yield service
        finally:
            service.kill()


@asynccontextmanager
async def channel(address: str) -> AsyncIterator[Any]:
    """A connection of its own, for messages as bytes."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(address, options) as opened:
        yield opened


async def answer(address: str, method: str, request: bytes) -> bytes:
    async with channel(address) as opened:
        found: bytes = await opened.unary_unary(method)(request)
        return found


async def calls_per_second(
    address: str, payloads: Iterator[bytes], method: str, seconds: float
) -> float:
    """Of several clients, each of which waits for one answer after the other."""

    async def client() -> int:
        done = 0
        async with channel(address) as opened:
            call = opened.unary_unary(method)
            while time.perf_counter() < end:
                await call(next(payloads))
                done += 1
        return done

    start = time.perf_counter()
    end = start + seconds
    counts = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(counts) / (time.perf_counter() - start)


def under_load(
    server: Service, payloads: Iterator[bytes], method: str, seconds: float
) -> tuple[float, float]:
    """Calls a second of several clients, and milliseconds of the server's processor a call."""
    before = cpu_seconds(server.process.pid)
    rate = asyncio.run(calls_per_second(server.address, payloads, method, seconds))
    return rate, (cpu_seconds(server.process.pid) - before) / (rate * seconds) * 1e3


async def milliseconds_a_call(
    opened: Any, method: str, payloads: Iterator[bytes], calls: int
) -> float:
    """The median of calls one after the other."""
    call = opened.unary_unary(method)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await call(next(payloads))
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def cpu_milliseconds(work: Callable[[], Any], runs: int = 1) -> list[float]:
    """What this thread computes in every run."""
    times = []
    for _ in range(runs):
        began = time.thread_time()
        work()
        times.append((time.thread_time() - began) * 1e3)
    return times


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, whatever else the machine does (Linux)."""
    # The clock that clock_getcpuclockid gives for a process.
    return time.clock_gettime(~pid << 3 | 2)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]
