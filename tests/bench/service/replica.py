"""What a replica adds: to a call, to a message of a stream, in memory where none is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import repeat
from typing import Any

from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, generation_pb2_grpc, planner_pb2

from tests.bench.calls import (
    COMPILE,
    GET,
    channel,
    cpu_seconds,
    milliseconds_a_call,
    planner,
    replica,
)
from tests.bench.inputs import CONFIG, FLUX
from tests.bench.report import Cell, Figure, Table
from tests.e2e.processes import Service, memory_mib
from tests.planner.service.peers import Client, Executor

STEPS = 1000
PICTURE_BYTES = 32 << 20
SETTLE_SECONDS = 5.0


def replicas(*, rounds: int, calls: int, readers: int) -> tuple[Table, Table]:
    with planner() as served, replica(served) as front:
        added = asyncio.run(_added(served, front, rounds, calls))
        held = asyncio.run(_slow_readers(served, front, readers))
    headings = ("", "directly, ms", "through it, ms", "ratio", "ms of the replica's CPU")
    return Table("Through a replica", headings, added), held


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


async def _added(
    served: Service, front: Service, rounds: int, calls: int
) -> tuple[tuple[Cell, ...], ...]:
    usual = await _finished(served.address, 28, b"")
    ended = await _finished(served.address, STEPS, b"")
    get = generation_pb2.GetGenerationRequest(name=usual.name).SerializeToString()
    compiling = planner_pb2.CompilePlanRequest(model=FLUX, config=CONFIG.read_text())
    requests = {
        "GetGeneration, forwarded": (GET, repeat(get)),
        "CompilePlan, answered by the replica": (COMPILE, repeat(compiling.SerializeToString())),
    }
    rows = []
    async with channel(served.address) as direct, channel(front.address) as through:

        async def row(name: str, work: Any, count: int, form: str) -> None:
            plain, hop, costs = [], [], []
            for _ in range(rounds):
                plain.append(await work(direct))
                before = cpu_seconds(front.process.pid)
                hop.append(await work(through))
                costs.append((cpu_seconds(front.process.pid) - before) / count * 1e3)
            ratio = Figure.of([far / near for far, near in zip(hop, plain, strict=True)])
            found = Figure.of(plain, form), Figure.of(hop, form), ratio, Figure.of(costs, form)
            rows.append((name, *found))

        for name, (method, payloads) in requests.items():

            async def call(
                opened: Any, method: str = method, payloads: Iterator[bytes] = payloads
            ) -> float:
                return await milliseconds_a_call(opened, method, payloads, calls)

            await row(name, call, calls, ".2f")

        _, messages = await _stream(direct, ended.name)

        async def message(opened: Any) -> float:
            return (await _stream(opened, ended.name))[0] / messages * 1e3

        await row(f"a message of a stream of {messages:,}", message, messages, ".3f")
    return tuple(rows)


async def _stream(opened: Any, name: str) -> tuple[float, int]:
    """Seconds and messages."""
    stub = generation_pb2_grpc.GenerationServiceStub(opened)
    began, messages = time.perf_counter(), 0
    async for _ in stub.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name)):
        messages += 1
    return time.perf_counter() - began, messages


async def _slow_readers(served: Service, front: Service, readers: int) -> Table:
    ended = await _finished(served.address, 5, bytes(PICTURE_BYTES))
    request = generation_pb2.ReadArtifactRequest(name=f"{ended.name}/artifacts/image.png")
    processes = served.process.pid, front.process.pid
    before = [memory_mib(process) for process in processes]
    async with Client(front.address) as client:
        calls = [client.generations.ReadArtifact(request) for _ in range(readers)]
        await asyncio.gather(*(call.read() for call in calls))
        await asyncio.sleep(SETTLE_SECONDS)
        after = [memory_mib(process) for process in processes]
        for call in calls:
            call.cancel()
    grown = [(last - first) / readers for first, last in zip(before, after, strict=True)]
    rows = tuple(
        (f"{name}, {readers} readers", Figure(each, ".1f"))
        for name, each in zip(("planner", "replica"), grown, strict=True)
    )
    title = f"Held by readers of {PICTURE_BYTES >> 20} MiB that stopped"
    return Table(title, ("", "MiB each"), rows)
