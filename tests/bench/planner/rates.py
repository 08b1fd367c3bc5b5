"""Plans a second over a socket, beside an echo of the same bytes; and what many of them leave."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from itertools import count, repeat

from ditplan.v1 import planner_pb2

from tests.bench.calls import (
    CLIENTS,
    COMPILE,
    answer,
    channel,
    echo,
    planner,
    ratios,
    under_load,
)
from tests.bench.inputs import CONFIG, FLUX
from tests.bench.report import Claim, Figure, Table
from tests.e2e.processes import memory_mib

STEPS = 50
COMPILES = 1000
ECHO, AGAIN, ANEW = "bare echo", "CompilePlan, answered again", "CompilePlan, really compiled"


def _request(**changes: float) -> bytes:
    request = planner_pb2.CompilePlanRequest(
        model=FLUX, config=CONFIG.read_text(), num_inference_steps=STEPS, **changes
    )
    return request.SerializeToString()


def _others(first: float) -> Iterator[bytes]:
    """Requests that no earlier one was equal to, so that each has to be compiled."""
    for number in count():
        yield _request(guidance_scale=first + number / 1e6)


def call_rates(*, rounds: int, seconds: float) -> tuple[Table, Claim]:
    payload = _request()
    with planner() as served:
        told = asyncio.run(answer(served.address, COMPILE, payload))
        with echo(told) as bare:
            kinds = {
                ECHO: (bare, repeat(payload)),
                AGAIN: (served, repeat(payload)),
                ANEW: (served, _others(1.0)),
            }
            rates: dict[str, list[float]] = {kind: [] for kind in kinds}
            costs: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind, (server, payloads) in kinds.items():
                    rate, cost = under_load(server, payloads, COMPILE, seconds)
                    rates[kind].append(rate)
                    costs[kind].append(cost)
    rows = tuple(
        (
            kind,
            Figure.of(found, ".0f"),
            Figure.of(ratios(found, rates[ECHO])) if kind != ECHO else "",
            Figure.of(costs[kind]),
        )
        for kind, found in rates.items()
    )
    headings = ("", "calls/s", "of the echo's", "ms of the server's CPU a call")
    title = f"CompilePlan, {CLIENTS} clients, {len(payload)} bytes up, {len(told)} down"
    claim = Claim(
        "plans a second by one planner, none of them asked for before",
        Figure(statistics.median(rates[ANEW]), ".0f", "/s"),
        Figure(statistics.median(rates[ECHO]), ".0f", "/s"),
        "a bare gRPC echo of the same bytes",
    )
    return Table(title, headings, rows), claim


def memory(*, rounds: int) -> tuple[Table, Claim]:
    """Of processes that serve: right after their start, and after many different plans."""
    told, idle, used, bare = b"", [], [], []
    for _ in range(rounds):
        with planner() as served:
            idle.append(memory_mib(served.process.pid))
            told = asyncio.run(_compile_all(served.address))
            used.append(memory_mib(served.process.pid))
        with echo(told) as server:
            bare.append(memory_mib(server.process.pid))
    rows = (
        ("planner, after its start", Figure.of(idle, ".0f")),
        (f"planner, after {COMPILES:,} different compiles", Figure.of(used, ".0f")),
        ("bare echo, after its start", Figure.of(bare, ".0f")),
    )
    claim = Claim(
        "memory of a planner",
        Figure(statistics.median(idle), ".0f", " MiB"),
        Figure(statistics.median(bare), ".0f", " MiB"),
        "a bare gRPC echo in Python",
    )
    return Table("Memory of serving processes", ("", "MiB"), rows), claim


async def _compile_all(address: str) -> bytes:
    told, payloads = b"", _others(2.0)
    async with channel(address) as opened:
        call = opened.unary_unary(COMPILE)
        for _ in range(COMPILES):
            told = await call(next(payloads))
    return told
