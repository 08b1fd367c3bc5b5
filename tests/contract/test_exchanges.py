"""Ranks exchange, call by call and byte by byte, what the plan says."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest

from executor.parallel.wire import Collective
from planner.compile.compiler import Compilation
from planner.compile.plan import OpKind
from tests.executor.engine.tiny_transformers import FAMILIES, WITH_CFG, TinyTransformer
from tests.executor.parallel.shared_runs import Planned, run_planned
from tests.executor.rank_farm import RankFarm

CACHE = {
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 2,
    "max_warmup_steps": 1,
    "steps_computation_policy": "static",
    "steps_computation_mask": [1, 0, 1],
}
ADAPTIVE = {"Fn_compute_blocks": 2, "max_warmup_steps": 1, "residual_diff_threshold": 0.3}
STEPS = 3

TOPOLOGIES: dict[int, list[dict[str, Any]]] = {
    2: [
        {"ulysses_size": 2},
        {"ulysses_size": 2, "ulysses_float8": True},
        {"ulysses_size": 2, "ulysses_async": True},
        {"ring_size": 2},
        {"ring_size": 2, "ring_rotate_method": "allgather"},
        {"tp_size": 2},
    ],
    3: [
        {"ulysses_size": 3, "ulysses_anything": True},
        {"ulysses_size": 3, "ulysses_anything": True, "ulysses_float8": True},
    ],
    4: [
        {"ulysses_size": 4},
        {"ring_size": 4},
        {"ulysses_size": 2, "ring_size": 2},
        {"ulysses_size": 2, "ring_size": 2, "ring_rotate_method": "allgather"},
        {"ulysses_size": 2, "tp_size": 2},
    ],
}


def compiled(
    family: str, topology: dict[str, Any], cache: dict[str, Any] | None, *, guided: bool
) -> Compilation:
    size = prod(topology.get(f"{key}_size", 1) for key in ("guidance", "ring", "ulysses", "tp"))
    config: dict[str, Any] = {"parallelism_config": topology}
    if cache is not None:
        config["cache_config"] = cache
    tiny = tiny_of(family, size)
    return tiny.compile(json.dumps(config), STEPS, guided=guided, world_size=size)


def tiny_of(family: str, size: int) -> TinyTransformer:
    """Of tokens that do not divide by three."""
    return TinyTransformer(family, (10, 6) if size == 3 else None)


# Every family on two ranks; on more, those whose streams differ.
RUNS = [
    *((family, 2) for family in FAMILIES),
    *((family, 3) for family in ("flux", "hunyuan")),
    *((family, 4) for family in ("flux2", "qwen", "wan")),
]


@pytest.mark.parametrize(("family", "size"), RUNS)
def test_a_decided_run_exchanges_what_was_estimated(
    rank_farm: RankFarm, family: str, size: int
) -> None:
    compilations = [
        compiled(family, topology, cache, guided=cache is not None and family in WITH_CFG)
        for topology in TOPOLOGIES[size]
        for cache in (None, CACHE)
    ]
    counted = rank_farm.run(
        size, run_planned, [Planned.of(tiny_of(family, size), each) for each in compilations]
    )[0]
    for compilation, run in zip(compilations, counted, strict=True):
        assert compilation.estimate is not None
        assert compilation.estimate.cost is not None
        exchanges = compilation.estimate.cost.exchanges
        for most in (False, True):
            assert {
                (each.collective, each.group): (
                    (each.max_calls, each.max_bytes) if most else (each.min_calls, each.min_bytes)
                )
                for each in exchanges
            } == {
                (kind.value, group): (count.calls, count.bytes)
                for (kind, group), count in run.counts.items()
            }, compilation.program and compilation.program.topology
        columns = compilation.estimate.cost.columns
        assert run.cache_bytes == tuple(column.cache_bytes for column in columns)


HALVES: dict[int, list[dict[str, Any]]] = {
    2: [{"guidance_size": 2}],
    4: [
        {"guidance_size": 2, "ulysses_size": 2},
        {"guidance_size": 2, "ring_size": 2},
        {"guidance_size": 2, "tp_size": 2},
    ],
}


@pytest.mark.parametrize("family", WITH_CFG)
@pytest.mark.parametrize("size", HALVES)
def test_halves_exchange_what_was_estimated(rank_farm: RankFarm, family: str, size: int) -> None:
    compilations = [
        compiled(family, topology, cache, guided=True)
        for topology in HALVES[size]
        for cache in (None, CACHE, ADAPTIVE)
    ]
    first, *_, last = rank_farm.run(
        size, run_planned, [Planned.of(tiny_of(family, size), each) for each in compilations]
    )
    for compilation, run, other in zip(compilations, first, last, strict=True):
        assert compilation.program is not None
        assert compilation.estimate is not None
        assert compilation.estimate.cost is not None
        adaptive = sum(op.kind is OpKind.ADAPTIVE for op, _ in compilation.program.steps if op)
        counts = {(kind.value, group): count for (kind, group), count in run.counts.items()}
        estimated = {
            (each.collective, each.group): each for each in compilation.estimate.cost.exchanges
        }
        assert counts.keys() == estimated.keys()
        for key, each in estimated.items():
            if not adaptive or key == ("all_gather", "guidance"):
                assert each.min_calls == each.max_calls == counts[key].calls
                assert each.min_bytes == each.max_bytes == counts[key].bytes
            assert each.min_calls <= counts[key].calls <= each.max_calls
            assert each.min_bytes <= counts[key].bytes <= each.max_bytes
        cost = compilation.estimate.cost
        assert run.outcomes == other.outcomes
        assert run.cache_bytes == other.cache_bytes
        if not adaptive:
            assert run.cache_bytes == tuple(column.cache_bytes for column in cost.columns)
        assert cost.cache_bytes * 2 == sum(column.cache_bytes for column in cost.columns)


@pytest.mark.parametrize("family", ["flux", "qwen"])
@pytest.mark.parametrize("separate", [True, False])
def test_a_decision_is_one_small_collective(
    rank_farm: RankFarm, family: str, separate: bool
) -> None:
    cache = ADAPTIVE | {"cfg_diff_compute_separate": separate}
    compilation = compiled(family, {"ulysses_size": 2}, cache, guided=family == "qwen")
    (run,), _ = rank_farm.run(2, run_planned, [Planned.of(tiny_of(family, 2), compilation)])
    measured = [
        [op.residual_diff for op in step if op is not None and op.residual_diff is not None]
        for step in run.outcomes
    ]
    decisions = sum(len(diffs if separate else diffs[:1]) for diffs in measured)
    count = run.counts[Collective.DECISION, "branch"]
    assert (count.calls, count.bytes) == (decisions, 24 * decisions)
    assert decisions > 0
    assert compilation.estimate is not None
    assert compilation.estimate.cost is not None
    for each in compilation.estimate.cost.exchanges:
        count = run.counts[Collective(each.collective), each.group]
        assert each.min_calls <= count.calls <= each.max_calls
        assert each.min_bytes <= count.bytes <= each.max_bytes
