"""Measures the planner: compile times, calls per second against an echo, start of the preview."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, repeat
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
from ditplan.v1 import planner_pb2

from planner.compile import compiler
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.config.load import load
from planner.models.catalog import NAMED
from planner.models.resolve import from_name
from planner.service.server import Planner, Settings
from planner.telemetry.logs import configure_logs

_ROOT = Path(__file__).parents[2]
_CONFIG = _ROOT / "deploy" / "examples" / "cache.yaml"
_MODEL = "black-forest-labs/FLUX.1-dev"
_STEPS = 50
_ROUNDS = 5
_SECONDS = 1.5
_CLIENTS = 8
_COMPILE_PLAN = "/ditplan.v1.PlannerService/CompilePlan"
_PREVIEW = ("preview", str(_CONFIG), "--model", _MODEL)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _milliseconds(work: Callable[[], Any], runs: int = 50) -> list[float]:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return times


def compile_times() -> None:
    text, request = _CONFIG.read_text(), Request(num_inference_steps=_STEPS)
    print(f"compile, {_STEPS} steps, ms: without reading the YAML | with it")
    seen = set()
    for name in NAMED:
        model = from_name(name)
        if model.architecture.family in seen:
            continue
        seen.add(model.architecture.family)
        whole = _milliseconds(lambda model=model: compile_config(text, model, request))
        bare = []
        for _ in range(50):
            loaded = load(text)
            with mock.patch.object(compiler, "load", lambda *_, loaded=loaded, **__: loaded):
                bare += _milliseconds(lambda model=model: compile_config(text, model, request), 1)
        print(f"  {model.architecture.family:14} {spread(bare)} | {spread(whole)}")


def _serve(ready: Connection, answer: bytes | None) -> None:
    async def run() -> None:
        configure_logs()
        if answer is None:
            with tempfile.TemporaryDirectory() as data:
                async with Planner(Settings(Path(data), listen="127.0.0.1:0")) as planner:
                    ready.send(planner.address)
                    await asyncio.Event().wait()

        async def echo(request: bytes, context: Any) -> bytes:
            return answer or b""

        server = grpc.aio.server()
        handlers = {"CompilePlan": grpc.unary_unary_rpc_method_handler(echo)}
        name = "ditplan.v1.PlannerService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready.send(f"127.0.0.1:{port}")
        await server.wait_for_termination()

    asyncio.run(run())


def started_echo(answer: bytes) -> tuple[Any, str]:
    """A process that answers every call with these bytes, and its address."""
    return _started(answer)


def _started(answer: bytes | None) -> tuple[Any, str]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, answer), daemon=True)
    process.start()
    return process, here.recv()


async def calls_per_second(
    address: str, payloads: Iterator[bytes], method: str = _COMPILE_PLAN
) -> float:
    """Of several clients, each of which waits for one answer after the other."""

    async def client() -> int:
        done = 0
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(method)
            while time.perf_counter() < end:
                await call(next(payloads))
                done += 1
        return done

    start = time.perf_counter()
    end = start + _SECONDS
    counts = await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return sum(counts) / (time.perf_counter() - start)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, whatever else the machine does (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _answer(address: str, payload: bytes) -> bytes:
    async with grpc.aio.insecure_channel(address) as channel:
        answer: bytes = await channel.unary_unary(_COMPILE_PLAN)(payload)
        return answer


def call_rates() -> None:
    request = planner_pb2.CompilePlanRequest(
        model=_MODEL, config=_CONFIG.read_text(), num_inference_steps=_STEPS
    )
    payload = request.SerializeToString()
    planner, address = _started(None)
    answer = asyncio.run(_answer(address, payload))
    echo, echo_address = _started(answer)

    def others() -> Iterator[bytes]:
        """Requests that no earlier one was equal to, so that each has to be compiled."""
        for number in count():
            request.guidance_scale = 1 + number / 1e6
            yield request.SerializeToString()

    kinds = {
        "bare echo": (echo, echo_address, repeat(payload)),
        "CompilePlan, answered again": (planner, address, repeat(payload)),
        "CompilePlan, really compiled": (planner, address, others()),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(_ROUNDS):
        for kind, (server, at, payloads) in kinds.items():
            before = cpu_seconds(server.pid)
            rate = asyncio.run(calls_per_second(at, payloads))
            rates[kind].append(rate)
            costs[kind].append((cpu_seconds(server.pid) - before) / (rate * _SECONDS) * 1000)
    for process in (planner, echo):
        process.terminate()
        process.join()
    print(f"calls/s, {len(payload)} bytes up, {len(answer)} down, {_CLIENTS} clients:")
    bare = statistics.median(rates["bare echo"])
    for kind, found in rates.items():
        share = statistics.median(found) / bare
        cost = statistics.median(costs[kind])
        print(
            f"  {kind:30} {spread(found)}, {share:.0%} of the echo's; "
            f"{cost:.2f} ms of the server's CPU a call"
        )


def preview_start() -> None:
    command = [sys.executable, "-m", "planner", *_PREVIEW]
    run = _milliseconds(lambda: subprocess.run(command, check=True, capture_output=True), 10)
    print(f"ditplan preview, ms: {spread(run)}")
    code = (
        "import sys; from planner.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *_PREVIEW], capture_output=True, text=True, check=True
    )
    print(f"torch is imported: {'yes' if 'True' in done.stderr else 'no'}")


if __name__ == "__main__":
    compile_times()
    call_rates()
    preview_start()
