"""The cache of a run holds, to the byte, what its plan says: per column, at the peak."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from executor.engine.arena import Arena
from executor.engine.execution import Execution
from executor.engine.forward import Forward
from executor.engine.program import Program
from executor.placement.quiet import silence_libraries
from planner.compile.estimates.cache_size import holdings, peak_bytes
from tests.executor.engine.tiny_transformers import (
    FAMILIES,
    WITH_CFG,
    TinyTransformer,
    adaptive,
    executable,
    static,
)

silence_libraries()

MASK = "1111001010"
"""Cached steps by one and by several, and enough at equal distances for a decomposition."""

CALIBRATORS: dict[str, dict[str, Any]] = {
    "reuse": {},
    "taylor-0": {"enable_taylorseer": True, "taylorseer_order": 0},
    "taylor-1": {"enable_taylorseer": True, "taylorseer_order": 1},
    "taylor-2": {"enable_taylorseer": True, "taylorseer_order": 2},
    "taylor-2-encoder": {
        "enable_taylorseer": True,
        "taylorseer_order": 2,
        "enable_encoder_taylorseer": True,
    },
    "taylor-2-states": {
        "enable_taylorseer": True,
        "taylorseer_order": 2,
        "calibrator_cache_type": "hidden_states",
    },
    "foca": {"enable_foca": True},
    "foca-encoder-states": {
        "enable_foca": True,
        "enable_encoder_foca": True,
        "calibrator_cache_type": "hidden_states",
    },
    "dmd": {"enable_dmd": True, "dmd_rank": 3},
    "dmd-encoder-states": {
        "enable_dmd": True,
        "dmd_history": 4,
        "dmd_rank": 2,
        "enable_encoder_dmd": True,
        "calibrator_cache_type": "hidden_states",
    },
    "refresh": {"enable_taylorseer": True, "force_refresh_step_hint": 6},
}


@cache
def model_of(family: str, dtype: torch.dtype) -> nn.Module:
    return TinyTransformer(family, dtype=dtype).build()


def estimated(
    tiny: TinyTransformer, config: str, steps: int, *, guided: bool
) -> tuple[tuple[int, ...], Program]:
    compilation = tiny.compile(config, steps, guided=guided)
    program = executable(compilation)
    assert compilation.estimate is not None
    assert compilation.estimate.cost is not None
    return tuple(column.cache_bytes for column in compilation.estimate.cost.columns), program


def held(tiny: TinyTransformer, program: Program, *, guided: bool) -> tuple[int, ...]:
    """The peak of each column, which also is what the arena is seen to hold between steps."""
    model = model_of(tiny.family, tiny.dtype)
    execution = Execution({"transformer": model}, program)
    between = [0]
    with execution.attached():
        for _ in tiny.denoise(model, len(program.steps), guided=guided):
            execution.end_step()
            between.append(execution._arena.bytes)
    assert max(between) <= sum(execution.cache_bytes)
    return execution.cache_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_decided_run_holds_what_was_estimated(family: str, dtype: torch.dtype) -> None:
    tiny = TinyTransformer(family, dtype=dtype)
    differing = {}
    for name, keys in CALIBRATORS.items():
        # Two branches hold the same in every dtype: once is enough.
        twice = family in WITH_CFG and dtype is torch.float32
        for guided in (False, True) if twice else (False,):
            planned, program = estimated(tiny, static(MASK, keys), len(MASK), guided=guided)
            if (seen := held(tiny, program, guided=guided)) != planned or not all(planned):
                differing[name, guided] = seen, planned
    assert differing == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("threshold", [1e-6, 0.05, 0.99])
def test_an_undecided_run_holds_no_more(family: str, threshold: float) -> None:
    tiny = TinyTransformer(family)
    for keys in ({}, {"enable_taylorseer": True}, {"enable_foca": True}):
        planned, program = estimated(tiny, adaptive(threshold, keys), 8, guided=False)
        for mine, most in zip(held(tiny, program, guided=False), planned, strict=True):
            assert 0 < mine <= most


def test_without_blocks_to_skip_only_what_tests_compare_is_held() -> None:
    tiny = TinyTransformer("wan")
    ends = {"Fn_compute_blocks": 6, "Bn_compute_blocks": 2, "enable_taylorseer": True}
    for config, holds in ((static(MASK, ends), False), (adaptive(0.1, ends), True)):
        planned, program = estimated(tiny, config, len(MASK), guided=False)
        assert held(tiny, program, guided=False) == planned
        assert any(planned) is holds


STREAMS = ((1, 6, 64), (1, 3, 64))
LIMITS: list[dict[str, Any]] = [
    {},
    {"max_continuous_cached_steps": 1},
    {"max_continuous_cached_steps": 2, "max_warmup_steps": 3},
    {"max_cached_steps": 1},
    {"max_cached_steps": 2, "force_refresh_step_hint": 6},
]


@pytest.mark.parametrize("name", ["reuse", "taylor-2", "foca", "dmd"])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_the_worst_way_through_an_undecided_run_holds_what_was_estimated(
    name: str, limits: dict[str, Any]
) -> None:
    """Of all ways that residual diffs can take, none holds more, and one holds as much."""
    compilation = TinyTransformer("flux").compile(adaptive(0.5, CALIBRATORS[name] | limits), 8)
    program = executable(compilation)
    assert compilation.program is not None
    (column,) = compilation.program.columns
    assert column.calibrator is not None
    elements = [math.prod(shape) for shape in STREAMS]
    ops = [step[0] for step in compilation.program.steps]
    planned = peak_bytes(holdings(ops, column.calibrator), elements, 1, 4)
    tests = sum(op is not None and op.kind.name == "ADAPTIVE" for op in ops)
    ways = product((0.0, 1.0), repeat=tests)
    assert max(_peak(program, diffs) for diffs in ways) == planned > 0


@pytest.mark.parametrize("name", CALIBRATORS)
def test_steps_of_another_target_change_nothing(name: str) -> None:
    compilation = TinyTransformer("flux").compile(adaptive(0.5, CALIBRATORS[name]), 8)
    assert compilation.program is not None
    (column,) = compilation.program.columns
    assert column.calibrator is not None
    own = [step[0] for step in compilation.program.steps]
    alone = holdings(own, column.calibrator)
    for before, after in ((0, 3), (3, 0), (2, 2)):
        ops = [*before * [None], *own, *after * [None]]
        assert holdings(ops, column.calibrator) == alone


def _peak(program: Program, diffs: Iterable[float]) -> int:
    """What is held at the peak where the tests measure these residual diffs, in their order."""
    arena, coming = Arena(program), iter(diffs)
    generator = torch.Generator().manual_seed(0)
    computed = torch.ones(STREAMS[0])
    for step, (op,) in enumerate(program.steps):
        assert op is not None
        forward = Forward(arena.columns[0], step, op, has_middle=True)
        change = computed * (1 + next(coming)) if op.adaptive else computed
        streams = tuple(torch.randn(shape, generator=generator) for shape in STREAMS)
        forward.enter(tuple(torch.zeros(shape) for shape in STREAMS))
        forward.decide((change, torch.zeros(STREAMS[1])))
        forward.join(streams)
        if forward.predicted is None:
            computed = change
    (peak,) = arena.peak_bytes
    return peak
