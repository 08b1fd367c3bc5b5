"""The rule ahead of time against the rule at run time."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.compile.compiler import Compilation, compile_config
from planner.compile.counters import Bounds
from planner.compile.plan import Op, OpKind, Reason
from planner.compile.request import Request
from planner.compile.rule import bounds
from planner.models.resolve import from_name
from tests.planner.compile.dbcache import Settings, every_outcome, run

FLUX = from_name("black-forest-labs/FLUX.1-dev")
TINY, HUGE = 0.0, 1e9


def compiled(config: Settings, steps: int) -> Compilation:
    keys = {key: value for key, value in asdict(config).items() if value is not None}
    return compile_config(
        json.dumps({"cache_config": keys}), FLUX, Request(num_inference_steps=steps)
    )


def ops_of(config: Settings, steps: int) -> list[Op]:
    program = compiled(config, steps).program
    assert program is not None
    ops = [op for (op,) in program.steps if op is not None]
    assert len(ops) == steps
    return ops


def strip(config: Settings, steps: int) -> str:
    """F full, c cached, ? adaptive."""
    letters = {OpKind.FULL: "F", OpKind.CACHED: "c", OpKind.ADAPTIVE: "?"}
    return "".join(letters[op.kind] for op in ops_of(config, steps))


def reasons(config: Settings, steps: int) -> list[Reason]:
    return [op.reason for op in ops_of(config, steps)]


limits = st.sampled_from([-1, -1, -1, 0, 1, 2, 3, 5, 9])


@st.composite
def cases(draw: st.DrawFn, most_steps: int = 24) -> tuple[Settings, int]:
    steps = draw(st.integers(1, most_steps))
    rest = st.lists(st.integers(0, 1), min_size=steps - 1, max_size=steps - 1)
    return (
        Settings(
            residual_diff_threshold=draw(
                st.sampled_from([-1.0, 0.0, 0.1, 0.1, 0.1, 0.5, 1.0, 2.0])
            ),
            max_warmup_steps=draw(st.integers(-1, 9)),
            warmup_interval=draw(st.integers(1, 4)),
            max_cached_steps=draw(limits),
            max_continuous_cached_steps=draw(limits),
            max_accumulated_residual_diff_threshold=draw(
                st.sampled_from([None, None, -1.0, 0.0, 0.05, 0.3, 2.0])
            ),
            steps_computation_mask=draw(st.none() | rest.map(lambda mask: [1, *mask])),
            steps_computation_policy=draw(st.sampled_from(["dynamic", "static"])),
            force_refresh_step_hint=draw(st.sampled_from([None, None, 1, 2, 3, 7, 30])),
            force_refresh_step_policy=draw(st.sampled_from(["once", "repeat"])),
        ),
        steps,
    )


@settings(max_examples=400)
@given(cases(), st.data())
def test_no_run_contradicts_what_was_decided(
    case: tuple[Settings, int], data: st.DataObject
) -> None:
    config, steps = case
    # Values about the threshold and the accumulated limits, so that both outcomes are common.
    diff = st.sampled_from([TINY, 0.01, 0.09, 0.1, 0.2, 0.49, 0.6, HUGE])
    diffs = data.draw(st.lists(diff, min_size=steps, max_size=steps))
    compilation = compiled(config, steps)
    assert compilation.program is not None
    assert compilation.estimate is not None
    computed = run(config, diffs)
    for (op,), full in zip(compilation.program.steps, computed, strict=True):
        assert op is not None
        assert op.kind is OpKind.ADAPTIVE or (op.kind is OpKind.FULL) is full
    estimate = compilation.estimate
    assert estimate.min_computed_steps <= sum(computed) <= estimate.max_computed_steps


@settings(max_examples=400)
@given(cases())
@example((Settings(max_cached_steps=2, max_continuous_cached_steps=1, max_warmup_steps=0), 9))
def test_bounds_are_reached(case: tuple[Settings, int]) -> None:
    config, steps = case
    found = bounds(ops_of(config, steps))
    assert found.min_computed == sum(run(config, [TINY] * steps))
    assert found.max_computed == sum(run(config, [HUGE] * steps))


@settings(max_examples=400)
@given(cases(), st.data())
def test_what_is_left_open_can_go_either_way(
    case: tuple[Settings, int], data: st.DataObject
) -> None:
    config, steps = case
    open_steps = [i for i, op in enumerate(ops_of(config, steps)) if op.kind is OpKind.ADAPTIVE]
    if not open_steps:
        return
    step = data.draw(st.sampled_from(open_steps))
    diffs = [HUGE] * steps
    assert run(config, diffs)[step]
    # Everything before it computed leaves the limits untouched; diffs of nothing add up to nothing.
    if config.max_accumulated_residual_diff_threshold is None:
        diffs[step] = TINY
        assert not run(config, diffs)[step]


@settings(max_examples=300)
@given(cases(most_steps=10))
def test_ops_and_bounds_are_those_of_every_outcome_together(case: tuple[Settings, int]) -> None:
    """Exact, not only safe: what every outcome agrees on is decided, nothing else is."""
    config, steps = case
    adds_up = (config.max_accumulated_residual_diff_threshold or 0) > 0
    outcomes = every_outcome(config, steps, [TINY, 0.04, HUGE] if adds_up else [TINY, HUGE])
    ops = ops_of(config, steps)
    computed = [outcome.count("F") for outcome in outcomes]
    assert bounds(ops) == Bounds(min(computed), max(computed))
    for step, op in enumerate(ops):
        letters = {outcome[step] for outcome in outcomes}
        decided = {OpKind.FULL: {"F"}, OpKind.CACHED: {"c"}}.get(op.kind)
        if decided is not None:
            assert letters == decided
        elif not adds_up:
            # A sum of diffs can exclude an outcome that the rule leaves to the run.
            assert letters == {"F", "c"}


class TestExamples:
    def test_warm_up_computes_every_so_many_steps(self) -> None:
        config = Settings(max_warmup_steps=8, warmup_interval=2)
        assert strip(config, 12) == "F?F?F?F?????"

    def test_without_warm_up_the_first_step_has_nothing_to_reuse(self) -> None:
        config = Settings(max_warmup_steps=0)
        assert strip(config, 4) == "F???"
        assert reasons(config, 4)[0] is Reason.NO_REFERENCE

    def test_a_mask_shortens_the_warm_up_to_its_leading_ones(self) -> None:
        config = Settings(
            max_warmup_steps=8, warmup_interval=2, steps_computation_mask=[1, 1, 1, 0, 0, 1]
        )
        assert strip(config, 6) == "FFF??F"
        assert reasons(config, 6)[:3] == [Reason.WARMUP, Reason.SCM_COMPUTE, Reason.WARMUP]

    def test_a_static_mask_is_followed_whatever_the_limits(self) -> None:
        config = Settings(
            steps_computation_mask=[1, 0, 0, 0, 1],
            steps_computation_policy="static",
            max_cached_steps=1,
            residual_diff_threshold=0.0,
        )
        assert strip(config, 5) == "FcccF"

    def test_a_threshold_of_one_caches_whenever_the_limits_allow(self) -> None:
        config = Settings(
            residual_diff_threshold=1.0,
            max_warmup_steps=1,
            max_continuous_cached_steps=2,
            max_cached_steps=5,
        )
        assert strip(config, 10) == "FccFccFcFF"
        assert reasons(config, 10)[1:4] == [
            Reason.THRESHOLD_ALWAYS,
            Reason.THRESHOLD_ALWAYS,
            Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED,
        ]
        assert reasons(config, 10)[8:] == [Reason.CACHED_STEPS_EXHAUSTED] * 2

    def test_a_threshold_of_nothing_never_caches(self) -> None:
        config = Settings(residual_diff_threshold=0.0, max_warmup_steps=1)
        assert reasons(config, 3) == [Reason.WARMUP] + [Reason.THRESHOLD_NEVER] * 2

    def test_a_limit_of_nothing_never_caches(self) -> None:
        config = Settings(max_warmup_steps=1, max_continuous_cached_steps=0)
        assert strip(config, 4) == "FFFF"

    @pytest.mark.parametrize(("policy", "expected"), [("once", "F??F????"), ("repeat", "F??F??F?")])
    def test_a_refresh_starts_over(self, policy: str, expected: str) -> None:
        config = Settings(
            max_warmup_steps=1, force_refresh_step_hint=3, force_refresh_step_policy=policy
        )
        assert strip(config, 8) == expected
        assert [i for i, op in enumerate(ops_of(config, 8)) if op.refresh] == (
            [3] if policy == "once" else [3, 6]
        )

    def test_a_refresh_takes_the_mask_from_its_start(self) -> None:
        config = Settings(
            steps_computation_mask=[1, 0, 1, 0, 0, 0],
            steps_computation_policy="static",
            force_refresh_step_hint=4,
        )
        assert strip(config, 6) == "FcFcFc"
