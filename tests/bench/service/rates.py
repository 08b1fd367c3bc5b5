"""Calls a second, beside an echo of the same answer."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from itertools import count, repeat

from ditplan.v1 import generation_pb2, planner_pb2

from tests.bench.calls import (
    CLIENTS,
    COMPILE,
    CONFIG,
    CREATE,
    FLUX,
    GET,
    answer,
    calls_per_second,
    cpu_seconds,
    echo,
    planner,
    ratios,
)
from tests.bench.report import Claim, Figure, Table
from tests.bench.service.specs import ROOMY, create_request


def _creates() -> Iterator[bytes]:
    for number in count():
        yield create_request(f"bench-{number}", config=CONFIG.read_text()).SerializeToString()


def call_rates(*, rounds: int, seconds: float) -> tuple[Table, Claim]:
    with planner(*ROOMY) as served:
        creates = _creates()
        made = generation_pb2.CreateGenerationResponse.FromString(
            asyncio.run(answer(served.address, CREATE, next(creates)))
        )
        compiling = planner_pb2.CompilePlanRequest(
            model=FLUX, config=CONFIG.read_text(), num_inference_steps=28
        ).SerializeToString()
        get = generation_pb2.GetGenerationRequest(name=made.generation.name).SerializeToString()
        calls = {
            "CompilePlan": (COMPILE, repeat(compiling)),
            "GetGeneration": (GET, repeat(get)),
            "CreateGeneration": (CREATE, creates),
        }
        rows, rates, bare = [], [], []
        for name, (method, payloads) in calls.items():
            told = asyncio.run(answer(served.address, method, next(payloads)))
            rates, bare, costs = [], [], []
            with echo(told) as server:
                for _ in range(rounds):
                    bare.append(
                        asyncio.run(calls_per_second(server.address, payloads, method, seconds))
                    )
                    before = cpu_seconds(served.process.pid)
                    rate = asyncio.run(calls_per_second(served.address, payloads, method, seconds))
                    spent = cpu_seconds(served.process.pid) - before
                    rates.append(rate)
                    costs.append(spent / (rate * seconds) * 1e3)
            found = Figure.of(rates, ".0f"), Figure.of(ratios(rates, bare)), Figure.of(costs)
            rows.append((name, *found, f"{len(told)}"))
    headings = ("", "calls/s", "of the echo's", "ms of the planner's CPU a call", "bytes down")
    claim = Claim(
        "work accepted, compiled and on disk",
        Figure(statistics.median(rates), ".0f", "/s"),
        Figure(statistics.median(bare), ".0f", "/s"),
        "a bare gRPC echo of the same bytes",
    )
    note = "CreateGeneration answers when the work is compiled and on disk (fsync)."
    return Table(f"Calls of {CLIENTS} clients", headings, tuple(rows), note), claim
