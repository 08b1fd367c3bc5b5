"""Measures what a replica adds: to a call, to a message of a stream, in memory where none is read.

Of several rounds the best, since all share the machine.

Run it with `make bench-service`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, generation_pb2_grpc, planner_pb2

from tests.bench.planner import calls_per_second, cpu_seconds
from tests.e2e.processes import Service, memory_mib
from tests.planner.service.peers import MODEL, Client, Executor

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "examples" / "cache.yaml"
CALLS = 1500
ROUNDS = 5
STEPS = 1000
READERS = 50
PICTURE_BYTES = 32 << 20
GET = "/ditplan.v1.GenerationService/GetGeneration"
COMPILE = "/ditplan.v1.PlannerService/CompilePlan"


async def _finished(address: str, steps: int, picture: bytes) -> generation_pb2.Generation:
    """A generation that has ended, with its events and a picture."""
    async with Client(address) as client, Executor(address) as executor:
        created = await client.create(queue=True, num_inference_steps=steps)
        run = await executor.start()
        for first in range(0, steps, 100):
            await run.report(first, min(first + 100, steps))
        await executor.upload(run.lease, "image.png", picture)
        await run.send(completion=dispatch_pb2.Completion(denoise_seconds=1, total_seconds=2))
        await run.receive()
        return await client.get(created.name)


async def _milliseconds(channel: Any, method: str, request: bytes) -> float:
    call = channel.unary_unary(method)
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call(request)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


async def _seconds_of_a_stream(channel: Any, name: str) -> tuple[float, int]:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    began, messages = time.perf_counter(), 0
    async for _ in stub.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name)):
        messages += 1
    return time.perf_counter() - began, messages


async def _added(planner: Service, front: Service) -> None:
    usual = await _finished(planner.address, 28, b"")
    ended = await _finished(planner.address, STEPS, b"")
    get = generation_pb2.GetGenerationRequest(name=usual.name).SerializeToString()
    compiling = planner_pb2.CompilePlanRequest(model=MODEL, config=CONFIG.read_text())
    compile_ = compiling.SerializeToString()
    async with (
        grpc.aio.insecure_channel(planner.address) as direct,
        grpc.aio.insecure_channel(front.address) as through,
    ):
        for name, method, request in (
            ("GetGeneration, forwarded", GET, get),
            ("CompilePlan, answered by the replica", COMPILE, compile_),
        ):
            before = cpu_seconds(front.process.pid)
            pairs = [
                (
                    await _milliseconds(direct, method, request),
                    await _milliseconds(through, method, request),
                )
                for _ in range(ROUNDS)
            ]
            plain, hop = (min(times) for times in zip(*pairs, strict=True))
            each = (cpu_seconds(front.process.pid) - before) / ROUNDS / CALLS * 1e3
            print(f"{name}: {plain:.2f} ms, through a replica {hop:.2f} ms, {each:.2f} of its core")
            rates = [
                await calls_per_second(service.address, repeat(request), method)
                for service in (planner, front)
            ]
            print(f"  of 8 clients: {rates[0]:.0f}/s, through a replica {rates[1]:.0f}/s")
        before = cpu_seconds(front.process.pid)
        streams = []
        for _ in range(ROUNDS):
            plain, messages = await _seconds_of_a_stream(direct, ended.name)
            hop, _ = await _seconds_of_a_stream(through, ended.name)
            streams.append((plain / messages * 1e6, hop / messages * 1e6))
        plain, hop = (min(times) for times in zip(*streams, strict=True))
        each = (cpu_seconds(front.process.pid) - before) / ROUNDS / messages * 1e6
        print(
            f"a message of a stream of {messages}: {plain:.0f} us, through a replica {hop:.0f} us, "
            f"{each:.0f} of its core"
        )


async def _slow_readers(planner: Service, front: Service) -> None:
    ended = await _finished(planner.address, 5, bytes(PICTURE_BYTES))
    request = generation_pb2.ReadArtifactRequest(name=f"{ended.name}/artifacts/image.png")
    before = [memory_mib(service.process.pid) for service in (planner, front)]
    async with Client(front.address) as client:
        calls = [client.generations.ReadArtifact(request) for _ in range(READERS)]
        await asyncio.gather(*(call.read() for call in calls))
        await asyncio.sleep(5)
        after = [memory_mib(service.process.pid) for service in (planner, front)]
        for call in calls:
            call.cancel()
    grown = [last - first for first, last in zip(before, after, strict=True)]
    print(
        f"{READERS} readers of {PICTURE_BYTES >> 20} MiB that stopped: "
        f"{grown[0] / READERS:.2f} MiB each at the planner, {grown[1] / READERS:.2f} at the replica"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        serve = ("-m", "planner", "serve", "planner")
        services = [Service(directory, "dispatch", *serve, "--data", str(directory / "data"))]
        try:
            services[0].await_ready()
            dispatch = ("--dispatch", services[0].address)
            services.append(Service(directory, "front", *serve, *dispatch))
            services[1].await_ready()
            asyncio.run(_added(*services))
            asyncio.run(_slow_readers(*services))
        finally:
            for service in services:
                service.kill()


if __name__ == "__main__":
    main()
