"""Measures the service: calls against a bare echo, what it adds to a run, what watchers cost.

Run it with `make bench-service`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import grpc
from ditplan.v1 import generation_pb2, generation_pb2_grpc, planner_pb2

from tests.bench.planner import calls_per_second, cpu_seconds, started_echo
from tests.e2e.processes import Service, memory_mib

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "deploy" / "demo" / "model"
CONFIG = ROOT / "deploy" / "examples" / "cache.yaml"
SECONDS = 2.0
CLIENTS = 8
WATCHERS = 1000
GENERATIONS = "/ditplan.v1.GenerationService"
OPTIONS = (
    *("--max-queue", "1000000", "--max-queue-per-client", "1000000"),
    *("--max-streams-per-client", "4000", "--model-root", str(MODEL)),
)


def _spec(**changes: Any) -> generation_pb2.GenerationSpec:
    values = {"model": str(MODEL), "prompt": "a red star", "seed": 1, "num_inference_steps": 28}
    return generation_pb2.GenerationSpec(**(values | changes))


async def _calls(planner: Service) -> None:
    compiling = planner_pb2.CompilePlanRequest(
        model="black-forest-labs/FLUX.1-dev", config=CONFIG.read_text(), num_inference_steps=28
    )

    def creates() -> Iterator[bytes]:
        for number in count():
            request = generation_pb2.CreateGenerationRequest(
                request_id=f"bench-{number}",
                spec=_spec(config=CONFIG.read_text()),
                queue_without_executor=True,
            )
            yield request.SerializeToString()

    create = creates()

    async with grpc.aio.insecure_channel(planner.address) as channel:
        made = generation_pb2.CreateGenerationResponse.FromString(
            await channel.unary_unary(f"{GENERATIONS}/CreateGeneration")(next(create))
        )
        get = generation_pb2.GetGenerationRequest(name=made.generation.name).SerializeToString()
        plain = compiling.SerializeToString()
        calls: dict[str, tuple[str, Iterator[bytes]]] = {
            "CompilePlan": ("/ditplan.v1.PlannerService/CompilePlan", repeat(plain)),
            "GetGeneration": (f"{GENERATIONS}/GetGeneration", repeat(get)),
            "CreateGeneration": (f"{GENERATIONS}/CreateGeneration", create),
        }
        answers = {
            name: await channel.unary_unary(method)(next(payloads))
            for name, (method, payloads) in calls.items()
        }
    print(f"calls a second, {CLIENTS} clients, and of an echo of the same answer in the same round")
    for name, (method, payloads) in calls.items():
        echo, address = started_echo(answers[name])
        ratios, rates = [], []
        for _ in range(3):
            bare = await calls_per_second(address, payloads)
            rates.append(await calls_per_second(planner.address, payloads, method))
            ratios.append(rates[-1] / bare)
        echo.terminate()
        print(
            f"  {name:18}{statistics.median(rates):7.0f}/s  {statistics.median(ratios):5.0%} "
            f"of the echo, answer of {len(answers[name])} bytes"
        )


async def _idle_watchers(planner: Service) -> None:
    process = planner.process.pid
    async with grpc.aio.insecure_channel(planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.CreateGenerationRequest(spec=_spec(), queue_without_executor=True)
        made = await stub.CreateGeneration(request)
        watch = generation_pb2.WatchGenerationRequest(name=made.generation.name)
        before = memory_mib(process)
        calls = []
        for _ in range(WATCHERS):
            call = stub.WatchGeneration(watch)
            await call.read()
            await call.read()
            calls.append(call)
        each = (memory_mib(process) - before) * 1024 / WATCHERS
        cpu = cpu_seconds(process)
        await asyncio.sleep(SECONDS)
        idle = (cpu_seconds(process) - cpu) / SECONDS
        print(f"{WATCHERS} idle watchers: {each:.0f} KiB each, {idle:.1%} of a core")
        for call in calls:
            call.cancel()


async def _events(planner: Service, name: str) -> None:
    """How many events a second watchers of a run that has ended are told."""

    async def follow(stub: Any) -> int:
        done = 0
        while time.perf_counter() < end:
            async for _ in stub.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name)):
                done += 1
        return done

    async with grpc.aio.insecure_channel(planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        cpu, end = cpu_seconds(planner.process.pid), time.perf_counter() + SECONDS
        told = sum(await asyncio.gather(*(follow(stub) for _ in range(CLIENTS))))
        core = cpu_seconds(planner.process.pid) - cpu
        rate, of_a_core = told / SECONDS, told / core
        print(f"events told: {rate:.0f}/s, {of_a_core:.0f} for each second of its core")


async def _added(planner: Service, rounds: int) -> str:
    """What a run takes from the call to its last event beyond what the executor runs."""
    added, share, name = [], [], ""
    async with grpc.aio.insecure_channel(planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        for seed in range(rounds + 1):
            began = time.perf_counter()
            request = generation_pb2.GenerateRequest(spec=_spec(seed=seed))
            async for response in stub.Generate(request):
                event = response.event
            took = time.perf_counter() - began
            run = event.finished.record.total_seconds
            name = event.generation
            # The first one finds cold pages.
            if seed:
                added.append((took - run) * 1e3)
                share.append((took - run) / run)
    quartiles = statistics.quantiles(added, n=4)
    print(
        f"added to a run of {run:.2f} s: {quartiles[1]:.1f} ms ({quartiles[0]:.1f} to "
        f"{quartiles[2]:.1f}), {statistics.median(share):.1%}"
    )
    return name


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.service", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        services = []

        def planner(data: str) -> Service:
            serve = ("-m", "planner", "serve", "planner", "--data", str(directory / data))
            services.append(Service(directory, data, *serve, *OPTIONS))
            services[-1].await_ready()
            return services[-1]

        try:
            full = planner("full")
            asyncio.run(_calls(full))
            asyncio.run(_idle_watchers(full))
            full.kill()
            served = planner("served")
            execute = ("-m", "executor", "--planner", served.address, "--model", str(MODEL))
            services.append(Service(directory, "executor", *execute))
            services[-1].await_ready()
            asyncio.run(_events(served, asyncio.run(_added(served, rounds))))
        finally:
            for service in services:
                service.kill()


if __name__ == "__main__":
    main()
