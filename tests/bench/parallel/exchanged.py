"""What cached runs exchange: counted against the plan's estimate, and against Cache-DiT's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from executor.codec import program_from_proto
from planner.codec import program_to_proto
from planner.compile.compiler import Compilation, compile_config
from planner.compile.cost import ExchangeCost
from planner.compile.request import Request
from planner.models.resolve import from_directory
from tests.bench.engine.whole_run import configs
from tests.bench.inputs import DEMO
from tests.bench.parallel.runs import SIDE, STEPS, Counted, peer_runs, planned_runs
from tests.bench.parallel.speed import LANES
from tests.bench.report import Cell, Claim, Table
from tests.executor.rank_farm import RankFarm

ADAPTIVE, DECIDED = "cache.yaml", "SCM fast, static"
_DYNAMIC = Path("deploy/examples/cache-scm.yaml")


def against_estimate(farm: RankFarm) -> tuple[Table, Claim]:
    """A decided and an adaptive run under every topology."""
    texts = dict(configs())
    cases = [(name, cache) for name in LANES for cache in (DECIDED, ADAPTIVE)]
    compilations = [_compiled(texts[cache], LANES[name]) for name, cache in cases]
    runs = _run(farm, compilations)
    rows: list[tuple[Cell, ...]] = []
    equal = 0
    for (name, cache), compilation, counted in zip(cases, compilations, runs, strict=True):
        estimate = _exchanges(compilation)
        same = all(
            (each.min_calls, each.min_bytes) == (each.max_calls, each.max_bytes)
            and counted.exchanges[key] == (each.min_calls, each.min_bytes)
            for key, each in estimate.items()
        )
        equal += cache == DECIDED and same and counted.exchanges.keys() == estimate.keys()
        calls, nbytes = (sum(column) for column in zip(*counted.exchanges.values(), strict=True))
        rows.append(
            (
                f"{name}: {cache}",
                str(counted.computed),
                f"{calls:,}",
                _span(estimate.values(), "calls"),
                f"{nbytes:,}",
                _span(estimate.values(), "bytes"),
            )
        )
    table = Table(
        f"A run of the demo model on two ranks, {STEPS} steps: what rank 0 exchanges",
        ("", "computed", "calls counted", "estimated", "bytes counted", "estimated"),
        tuple(rows),
        "Of an adaptive run the plan tells the fewest and the most.",
    )
    what = "runs on two ranks that exchange what their plans say, call by call and byte by byte"
    return table, Claim(what, f"{equal} of {len(LANES)}")


def decisions(farm: RankFarm, ranks: RankFarm, peer: str) -> tuple[Table, Claim]:
    """All-reduces of a run's decisions; ``ranks`` are those of the peer, if it is there."""
    texts = dict(configs())
    chosen = {
        ADAPTIVE: texts[ADAPTIVE],
        _DYNAMIC.name: _DYNAMIC.read_text(),
        DECIDED: texts[DECIDED],
    }
    compilations = [_compiled(text, {"ulysses_size": 2}) for text in chosen.values()]
    ours = _run(farm, compilations)
    theirs: list[Counted] = ranks.run(2, peer_runs, list(chosen.values()))[0] if peer else []
    rows = tuple(
        (name, *_reduces(counted), *(_reduces(theirs[number]) if peer else ()))
        for number, (name, counted) in enumerate(zip(chosen, ours, strict=True))
    )
    headings = "computed", "all-reduces", "bytes"
    both = (*headings, *(f"{peer}: {heading}" for heading in headings if peer))
    note = (
        f"Of {peer} each rank runs the whole model: how it shares tokens is no part of this, and "
        "its test, which is parallel wherever a world has several ranks, is the same. "
        "Its averages, which gloo lacks, are made sums while they are counted."
    )
    table = Table(
        f"All-reduces that decide in a run of {STEPS} steps on two ranks",
        ("", *both),
        rows,
        note if peer else "",
    )
    what = "all-reduces that decide in a run of cache.yaml on two ranks"
    own = str(len(ours[0].reduces))
    return table, Claim(what, own, str(len(theirs[0].reduces)), peer) if peer else Claim(what, own)


def _reduces(counted: Counted) -> tuple[Cell, ...]:
    sizes = sorted(set(counted.reduces))
    each = f"{len(counted.reduces)} x {sizes[0]}" if len(sizes) == 1 else f"{sum(counted.reduces)}"
    return str(counted.computed), str(len(counted.reduces)), each


def _run(farm: RankFarm, compilations: list[Compilation]) -> list[Counted]:
    programs = []
    for compilation in compilations:
        assert compilation.program is not None, compilation.diagnostics
        programs.append(program_from_proto(program_to_proto(compilation.program)))
    counted: list[Counted] = farm.run(2, planned_runs, programs)[0]
    return counted


def _compiled(cache: str, topology: dict[str, Any]) -> Compilation:
    document = yaml.safe_load(cache) | {"parallelism_config": topology}
    request = Request(STEPS, 2, height=SIDE, width=SIDE, dtype="float32")
    return compile_config(json.dumps(document), from_directory(DEMO), request)


def _exchanges(compilation: Compilation) -> dict[tuple[str, str], ExchangeCost]:
    assert compilation.estimate is not None
    assert compilation.estimate.cost is not None
    exchanges = compilation.estimate.cost.exchanges
    return {(each.collective, each.group): each for each in exchanges}


def _span(exchanges: Iterable[ExchangeCost], of: str) -> str:
    """The fewest and the most of all kinds together."""
    pairs = [(getattr(each, f"min_{of}"), getattr(each, f"max_{of}")) for each in exchanges]
    fewest, most = (sum(column) for column in zip(*pairs, strict=True))
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
