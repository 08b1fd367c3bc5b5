"""Whatever is plausible, for whatever model: several forwards a step, shares of a run, records."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from ditplan.identity import plan_id
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.codec import program_to_proto
from planner.compile.cache.masks import has_preset, preset_mask
from planner.compile.compiler import Compilation, compile_config, compile_program
from planner.compile.plan import Op, OpKind, Program, Reason
from planner.compile.request import MAX_STEPS, Request
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name
from tests.planner.compile.dbcache import Settings, run

MODELS = {name: from_name(name) for name in sorted(NAMED)}
DIFFS = [0.0, 0.01, 0.09, 0.2, 0.6, 1e9]
LIMITS = st.sampled_from([-1, -1, 0, 1, 2, 5])
RULES = st.builds(
    Settings,
    residual_diff_threshold=st.sampled_from([-1.0, 0.1, 0.1, 0.5, 1.0]),
    max_warmup_steps=st.integers(-1, 6),
    warmup_interval=st.integers(1, 3),
    max_cached_steps=LIMITS,
    max_continuous_cached_steps=LIMITS,
    max_accumulated_residual_diff_threshold=st.sampled_from([None, None, -1.0, 0.3]),
    steps_computation_policy=st.sampled_from(["dynamic", "static"]),
    force_refresh_step_hint=st.sampled_from([None, None, 2, 6, 8]),
    force_refresh_step_policy=st.sampled_from(["once", "repeat"]),
)
PRESETS = st.sampled_from([None, "slow", "fast", "ultra"])
REQUESTS = st.builds(
    Request,
    num_inference_steps=st.integers(1, 30),
    guidance_scale=st.sampled_from([None, 4.0]),
    negative_prompt=st.booleans(),
)


def config_of(rule: Settings, preset: str | None) -> dict[str, Any]:
    keys = asdict(rule) | {"steps_computation_mask": preset, "Fn_compute_blocks": 1}
    return {"cache_config": {key: value for key, value in keys.items() if value is not None}}


def compiled(config: Any, model: ModelFacts, request: Request) -> tuple[Program, Compilation]:
    compilation = compile_config(json.dumps(config), model, request)
    assert compilation.program is not None, compilation.diagnostics
    return compilation.program, compilation


def simulated(
    program: Program, rule: Settings, preset: str | None, diffs: list[float]
) -> list[list[bool | None]]:
    """For every column and step whether all blocks are computed; None where it does not run."""
    forwards = len({column.branch for column in program.columns})
    found: list[list[bool | None]] = []
    for c in range(len(program.columns)):
        own = [i for i, step in enumerate(program.steps) if step[c] is not None]
        mask = preset_mask(preset, len(own)) if preset and has_preset(len(own)) else None
        hint = rule.force_refresh_step_hint
        of_target = replace(
            rule,
            steps_computation_mask=mask,
            force_refresh_step_hint=hint and hint // forwards,
        )
        seen = [diffs[(7 * c + i) % len(diffs)] for i in own]
        column: list[bool | None] = [None] * len(program.steps)
        for i, computed in zip(own, run(of_target, seen), strict=True):
            column[i] = computed
        found.append(column)
    return found


def record_of(program: Program, computed: list[list[bool | None]]) -> Program:
    def decided(op: Op | None, full: bool | None) -> Op | None:
        if op is None:
            return None
        kind = OpKind.FULL if full else OpKind.CACHED
        return Op(kind, Reason.REPLAY, refresh=op.refresh)

    steps = tuple(
        tuple(decided(op, computed[c][i]) for c, op in enumerate(step))
        for i, step in enumerate(program.steps)
    )
    return replace(program, steps=steps)


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(MODELS)),
    REQUESTS,
    RULES,
    PRESETS,
    st.lists(st.sampled_from(DIFFS), min_size=30, max_size=40),
)
def test_no_run_contradicts_its_plan(
    name: str, request: Request, rule: Settings, preset: str | None, diffs: list[float]
) -> None:
    model = MODELS[name]
    program, compilation = compiled(config_of(rule, preset), model, request)
    computed = simulated(program, rule, preset, diffs)
    for i, step in enumerate(program.steps):
        for c, op in enumerate(step):
            if op is not None and op.kind is not OpKind.ADAPTIVE:
                assert (op.kind is OpKind.FULL) is computed[c][i]
    count = sum(any(column[i] for column in computed) for i in range(len(program.steps)))
    estimate = compilation.estimate
    assert estimate is not None
    assert estimate.min_computed_steps <= count <= estimate.max_computed_steps
    # Nothing of a record is open: whichever columns computed a step, it counts once.
    record = compile_program(record_of(program, computed), model, compilation.request)
    assert record.estimate is not None, record.diagnostics
    assert record.estimate.min_computed_steps == record.estimate.max_computed_steps == count


ONE_BLOCK = {"Fn_compute_blocks": 1}
CALIBRATORS: list[dict[str, Any] | None] = [
    None,
    {},
    {"enable_taylorseer": True},
    {"enable_foca": True},
    {"enable_dmd": True},
]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=str)
def test_the_longest_run_compiles(name: str, calibrator: dict[str, Any] | None) -> None:
    cache = calibrator if calibrator is None else {"cache_config": {**calibrator, **ONE_BLOCK}}
    for steps in (1, MAX_STEPS):
        program, _ = compiled(cache, MODELS[name], Request(steps, negative_prompt=True))
        assert program.num_inference_steps == steps


def test_a_handover_is_sought_once_however_long_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sought: list[int] = []

    def seek(self: ModelFacts, target: str, steps: int) -> range:
        sought.append(steps)
        return steps_of(self, target, steps)

    steps_of = ModelFacts.steps_of
    monkeypatch.setattr(ModelFacts, "steps_of", seek)
    model = MODELS["Wan-AI/Wan2.2-T2V-A14B-Diffusers"]
    for cache in (None, {"cache_config": ONE_BLOCK}):
        sought.clear()
        compiled(cache, model, Request(9))
        compiled(cache, model, Request(90))
        assert sought.count(9) == sought.count(90) > 0


@settings(max_examples=80)
@given(
    st.sampled_from(sorted(MODELS)),
    REQUESTS,
    RULES,
    RULES,
    PRESETS,
    st.randoms(use_true_random=False),
)
def test_an_id_is_that_of_a_meaning(
    name: str, request: Request, rule: Settings, other: Settings, preset: str | None, shuffle: Any
) -> None:
    """Keys in any order and of any spelling have one id; another program has another id."""
    model = MODELS[name]
    config = config_of(rule, preset)
    config["quantize_config"] = {"quant_type": "float8", "exclude_layers": ["b", "a"]}
    keys = list(config["cache_config"].items())
    shuffle.shuffle(keys)
    again = {
        "quantize_config": {"exclude_layers": ["a", "b", "a"], "quant_type": "FLOAT8_PER_ROW"},
        "cache_config": {
            key: -7 if key.startswith("max_c") and value == -1 else value for key, value in keys
        },
    }
    one, _ = compiled(config, model, request)
    same, _ = compiled(again, model, request)
    assert plan_id(program_to_proto(one)) == plan_id(program_to_proto(same))
    config["cache_config"] = config_of(other, preset)["cache_config"]
    different, _ = compiled(config, model, request)
    assert (one == different) == (
        plan_id(program_to_proto(one)) == plan_id(program_to_proto(different))
    )


GROUPS = [
    # (computed by the first column, by the second), and the steps in which any computes
    ("FFFccc", "FccFFc", 5),
    ("Fccccc", "Fccccc", 1),
    ("FcFcFc", "FFcFcF", 6),
]


@pytest.mark.parametrize(("first", "second", "count"), GROUPS)
def test_a_step_of_a_record_counts_once_whichever_group_computed_it(
    first: str, second: str, count: int
) -> None:
    model = MODELS["black-forest-labs/FLUX.2-dev"]
    program, _ = compiled({"cache_config": {}}, model, Request(6))
    computed: list[list[bool | None]] = [[x == "F" for x in strip] for strip in (first, second)]
    estimate = compile_program(record_of(program, computed), model, Request()).estimate
    assert estimate is not None
    assert (estimate.min_computed_steps, estimate.max_computed_steps) == (count, count)
