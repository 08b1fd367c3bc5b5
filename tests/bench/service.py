"""Measures the service: calls against a bare echo, what it adds to a run, what watchers cost.

Run it with `make bench-service`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import grpc
from ditplan.v1 import generation_pb2, generation_pb2_grpc, planner_pb2

from tests.bench.planner import started_echo
from tests.e2e.processes import Service

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


def _memory_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _rate(address: str, method: str, payload: Callable[[], bytes]) -> float:
    """Calls per second of several clients, each of which waits for one answer after the other."""

    async def client() -> int:
        done = 0
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(method)
            while time.perf_counter() < end:
                await call(payload())
                done += 1
        return done

    began = time.perf_counter()
    end = began + SECONDS
    counts = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(counts) / (time.perf_counter() - began)


async def _calls(planner: Service) -> None:
    numbers = count()
    compiling = planner_pb2.CompilePlanRequest(
        model="black-forest-labs/FLUX.1-dev", config=CONFIG.read_text(), num_inference_steps=28
    )

    def create() -> bytes:
        request = generation_pb2.CreateGenerationRequest(
            request_id=f"bench-{next(numbers)}",
            spec=_spec(config=CONFIG.read_text()),
            queue_without_executor=True,
        )
        return request.SerializeToString()

    async with grpc.aio.insecure_channel(planner.address) as channel:
        made = generation_pb2.CreateGenerationResponse.FromString(
            await channel.unary_unary(f"{GENERATIONS}/CreateGeneration")(create())
        )
        get = generation_pb2.GetGenerationRequest(name=made.generation.name).SerializeToString()
        plain = compiling.SerializeToString()
        calls: dict[str, tuple[str, Callable[[], bytes]]] = {
            "CompilePlan": ("/ditplan.v1.PlannerService/CompilePlan", lambda: plain),
            "GetGeneration": (f"{GENERATIONS}/GetGeneration", lambda: get),
            "CreateGeneration": (f"{GENERATIONS}/CreateGeneration", create),
        }
        answers = {
            name: await channel.unary_unary(method)(payload())
            for name, (method, payload) in calls.items()
        }
    print(f"calls a second, {CLIENTS} clients, and of an echo of the same answer in the same round")
    for name, (method, payload) in calls.items():
        echo, address = started_echo(answers[name])
        ratios, rates = [], []
        for _ in range(3):
            bare = await _rate(address, "/ditplan.v1.PlannerService/CompilePlan", payload)
            rates.append(await _rate(planner.address, method, payload))
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
        before = _memory_mib(process)
        calls = []
        for _ in range(WATCHERS):
            call = stub.WatchGeneration(watch)
            await call.read()
            await call.read()
            calls.append(call)
        each = (_memory_mib(process) - before) * 1024 / WATCHERS
        cpu = _cpu_seconds(process)
        await asyncio.sleep(SECONDS)
        idle = (_cpu_seconds(process) - cpu) / SECONDS
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
        cpu, end = _cpu_seconds(planner.process.pid), time.perf_counter() + SECONDS
        told = sum(await asyncio.gather(*(follow(stub) for _ in range(CLIENTS))))
        core = _cpu_seconds(planner.process.pid) - cpu
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
