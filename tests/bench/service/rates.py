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
    CREATE,
    GET,
    answer,
    echo,
    planner,
    ratios,
    under_load,
)
from tests.bench.inputs import CONFIG, FLUX
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
        rows = []
        for name, (method, payloads) in calls.items():
            told = asyncio.run(answer(served.address, method, next(payloads)))
            rates, bare, costs = [], [], []
            with echo(told) as server:
                for _ in range(rounds):
                    bare.append(under_load(server, payloads, method, seconds)[0])
                    rate, cost = under_load(served, payloads, method, seconds)
                    rates.append(rate)
                    costs.append(cost)
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
