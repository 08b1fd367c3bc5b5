"""Whole runs on a tiny FLUX pipeline."""

from __future__ import annotations

import gc
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from executor.engine.arena import ColumnState
from executor.engine.execution import Execution
from executor.engine.forward import Forward
from executor.engine.program import (
    AdaptiveRule,
    CacheType,
    Calibrator,
    Dmd,
    FoCa,
    OpKind,
    Program,
    TaylorSeer,
)
from executor.engine.run import (
    ProgramMismatchError,
    RunCancelled,
    RunResult,
    RunSpec,
    check,
    run,
)
from executor.engine.step_clock import StepClock
from tests.executor.engine.programs import LISTS, decided, flux_program, uncached
from tests.executor.tiny import flux

SPEC = RunSpec(prompt="a red circle", height=32, width=32, seed=7, guidance_scale=3.5)
STEPS = 8
TAYLOR = Calibrator(forecast=TaylorSeer(1), encoder=True)
RULE = AdaptiveRule(0.99, max_continuous_cached_steps=2)


def _plain(pipeline: Any, spec: RunSpec, steps: int) -> Tensor:
    """The final latents of diffusers alone."""
    output = pipeline(
        prompt=spec.prompt,
        height=spec.height,
        width=spec.width,
        num_inference_steps=steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        max_sequence_length=pipeline.tokenizer_2.model_max_length,
        output_type="latent",
    )
    latents: Tensor = output.images
    return latents


def _kinds(result: RunResult) -> str:
    ops = [outcome.ops[0] for outcome in result.steps]
    return "".join("1" if op and op.kind is OpKind.FULL else "0" for op in ops)


@pytest.mark.parametrize(
    "program",
    [
        uncached(STEPS),
        flux_program("1" * STEPS),
        flux_program("1" * STEPS, fn=3, bn=2, calibrator=TAYLOR),
        flux_program("1???????", fn=1, rule=AdaptiveRule(0.0)),
    ],
    ids=["uncached", "full", "full-fn-bn", "adaptive-never-below"],
)
def test_computed_steps_equal_plain_diffusers_bit_for_bit(pipeline: Any, program: Program) -> None:
    result = run(pipeline, program, SPEC)
    assert torch.equal(result.latents, _plain(pipeline, SPEC, STEPS))
    assert _kinds(result) == "1" * STEPS


def test_cached_steps_differ_from_computed_ones(pipeline: Any) -> None:
    cached = run(pipeline, flux_program("11110101"), SPEC)
    assert _kinds(cached) == "11110101"
    assert not torch.equal(cached.latents, _plain(pipeline, SPEC, STEPS))


def test_a_cached_step_runs_only_first_and_last_blocks(pipeline: Any) -> None:
    calls: list[str] = []
    transformer = pipeline.transformer
    handles = [
        block.register_forward_hook(lambda *_, name=f"{name}{i}": calls.append(name))
        for name in LISTS
        for i, block in enumerate(getattr(transformer, name))
    ]
    try:
        run(pipeline, flux_program("10", fn=3, bn=1), SPEC)
    finally:
        for handle in handles:
            handle.remove()
    blocks = [f"{LISTS[0]}{i}" for i in range(2)] + [f"{LISTS[1]}{i}" for i in range(4)]
    assert calls == [*blocks, *blocks[:3], *blocks[-1:]]


@pytest.mark.parametrize(("fn", "bn"), [(1, 0), (2, 0), (2, 4), (6, 0), (1, 5), (3, 3)])
def test_every_split_of_the_blocks_is_exact_when_computed(pipeline: Any, fn: int, bn: int) -> None:
    """Also where first or last blocks end between the two lists, or nothing is left between."""
    program = flux_program("1?1?", fn=fn, bn=bn, rule=AdaptiveRule(1e-9), calibrator=TAYLOR)
    assert torch.equal(run(pipeline, program, SPEC).latents, _plain(pipeline, SPEC, 4))


@pytest.mark.parametrize(("fn", "bn"), [(6, 0), (2, 4), (1, 5)])
def test_with_nothing_to_skip_a_cached_step_is_a_computed_one(
    pipeline: Any, fn: int, bn: int
) -> None:
    result = run(pipeline, flux_program("1010", fn=fn, bn=bn), SPEC)
    assert torch.equal(result.latents, _plain(pipeline, SPEC, 4))


@pytest.mark.parametrize("cache_type", list(CacheType))
@pytest.mark.parametrize(
    "forecast", [None, TaylorSeer(0), TaylorSeer(2), FoCa(), Dmd(), Dmd(svd_precision="low")]
)
def test_a_replayed_record_is_bit_identical(
    pipeline: Any, forecast: TaylorSeer | FoCa | Dmd | None, cache_type: CacheType
) -> None:
    calibrator = Calibrator(cache_type, forecast, encoder=True)
    program = flux_program("1111????????", bn=1, rule=RULE, calibrator=calibrator)
    first = run(pipeline, program, SPEC)
    kinds = [op.kind for outcome in first.steps if (op := outcome.ops[0])]
    assert {OpKind.FULL, OpKind.CACHED} == set(kinds)
    again = run(pipeline, decided(program, kinds), SPEC)
    assert torch.equal(first.latents, again.latents)


def test_limits_hold_at_run_time(pipeline: Any) -> None:
    rule = AdaptiveRule(0.99, max_continuous_cached_steps=2)
    assert _kinds(run(pipeline, flux_program("1???????", rule=rule), SPEC)) == "10010010"
    rule = AdaptiveRule(0.99, max_cached_steps=3)
    assert _kinds(run(pipeline, flux_program("1???????", rule=rule), SPEC)) == "10001111"


def test_the_accumulated_limit_ends_caching_for_good(pipeline: Any) -> None:
    free = run(pipeline, flux_program("1???????", rule=AdaptiveRule(0.99)), SPEC)
    diffs = [op.residual_diff for outcome in free.steps if (op := outcome.ops[0])]
    first, second = diffs[1:3]
    assert first is not None
    assert second is not None
    rule = AdaptiveRule(0.99, max_accumulated_residual_diff_threshold=first + second)
    assert _kinds(run(pipeline, flux_program("1???????", rule=rule), SPEC)) == "10011111"


def test_refresh_forgets_reference_and_counters(pipeline: Any) -> None:
    rule = AdaptiveRule(0.99, max_cached_steps=2)
    refreshed = flux_program("1???1???", rule=rule, refresh=frozenset({4}))
    assert _kinds(run(pipeline, refreshed, SPEC)) == "10011001"


def test_outcomes_arrive_step_by_step(pipeline: Any) -> None:
    seen: list[int] = []
    result = run(pipeline, flux_program("1???"), SPEC, on_step=lambda o: seen.append(o.step))
    assert seen == [0, 1, 2, 3]
    assert [outcome.step for outcome in result.steps] == seen
    assert all(outcome.milliseconds > 0 for outcome in result.steps)
    assert result.steps[0].ops[0] is not None
    assert result.steps[0].ops[0].residual_diff is None
    assert result.frames[0].size == (32, 32)


@pytest.mark.parametrize("layers", [(0, 4), (3, 0)])
def test_a_model_without_blocks_of_one_kind_is_cached_too(layers: tuple[int, int]) -> None:
    pipeline = flux.build(num_layers=layers[0], num_single_layers=layers[1])
    assert torch.equal(run(pipeline, uncached(4), SPEC).latents, _plain(pipeline, SPEC, 4))
    assert _kinds(run(pipeline, flux_program("1010"), SPEC)) == "1010"


class _LateDevice(StepClock):
    """A device that computes while the host goes on, as CUDA does: 20 ms after each step."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(torch.device("cuda"))

    def _mark(self) -> float:
        return time.perf_counter() + 0.02

    def _milliseconds(self, before: float, after: float) -> float:
        time.sleep(max(after - time.perf_counter(), 0))
        return (after - before) * 1e3


def test_steps_of_a_device_that_lags_are_told_in_order_and_once(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    queued: list[int] = []
    monkeypatch.setattr("executor.engine.run.StepClock", _LateDevice)
    result = run(
        pipeline,
        flux_program("1?1?"),
        SPEC,
        on_step=lambda outcome: told.append(outcome.step),
        is_cancelled=lambda step: bool(queued.append(len(told))),
    )
    assert told == [0, 1, 2, 3]
    assert [outcome.step for outcome in result.steps] == told
    assert all(outcome.milliseconds > 0 for outcome in result.steps)
    # Asked before each forward and after each step: a step is told when the next one has ended.
    assert queued == [0, 0, 0, 1, 1, 2, 2, 3]


def test_encoding_the_prompt_is_not_the_time_of_the_first_step(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = pipeline.encode_prompt

    def slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return encode(*arguments, **options)

    monkeypatch.setattr(pipeline, "encode_prompt", slowly)
    result = run(pipeline, uncached(2), SPEC)
    assert result.steps[0].milliseconds < 300
    assert result.total_seconds > 0.3


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cancelling_takes_effect_within_one_step(pipeline: Any, after: int) -> None:
    done: list[int] = []
    with pytest.raises(RunCancelled):
        run(
            pipeline,
            flux_program("1" * STEPS),
            SPEC,
            on_step=lambda outcome: done.append(outcome.step),
            is_cancelled=lambda step: len(done) > after,
        )
    assert done == list(range(after + 1))


def test_block_lists_are_restored_exactly(pipeline: Any) -> None:
    transformer = pipeline.transformer
    before = {
        name: (type(getattr(transformer, name)), vars(getattr(transformer, name)).keys())
        for name in LISTS
    }
    keys, latents = list(transformer.state_dict()), _plain(pipeline, SPEC, 4)
    with pytest.raises(RunCancelled):
        run(pipeline, flux_program("1111"), SPEC, is_cancelled=lambda step: True)
    run(pipeline, flux_program("1010"), SPEC)
    after = {
        name: (type(getattr(transformer, name)), vars(getattr(transformer, name)).keys())
        for name in LISTS
    }
    assert after == before
    assert list(transformer.state_dict()) == keys
    assert torch.equal(_plain(pipeline, SPEC, 4), latents)


def test_while_attached_a_list_is_itself_but_for_iteration(pipeline: Any) -> None:
    blocks: nn.ModuleList = pipeline.transformer.transformer_blocks
    first, count, keys = blocks[0], len(blocks), list(blocks.state_dict())
    execution = Execution({"transformer": pipeline.transformer}, uncached(1))
    with execution.attached():
        assert isinstance(blocks, nn.ModuleList)
        assert blocks[0] is first
        assert len(blocks) == count
        assert list(blocks.state_dict()) == keys
        # One callable for every block, which is the block itself but where the run looks on.
        stand_ins = list(blocks)
        assert len(stand_ins) == count
        assert stand_ins[0] is not first
        assert stand_ins[1:] == [blocks[i] for i in range(1, count)]
    assert next(iter(blocks)) is first


def test_an_uncached_pipeline_of_the_same_class_sees_nothing(pipeline: Any) -> None:
    other = flux.build(seed=1)
    alone = _plain(other, SPEC, STEPS)
    execution = Execution({"transformer": pipeline.transformer}, flux_program("10" * 4))
    with execution.attached():
        assert torch.equal(_plain(other, SPEC, STEPS), alone)


def test_a_second_run_cannot_attach_meanwhile(pipeline: Any) -> None:
    first = Execution({"transformer": pipeline.transformer}, uncached(1))
    second = Execution({"transformer": pipeline.transformer}, uncached(1))
    with (
        first.attached(),
        pytest.raises(RuntimeError, match="another run is attached"),
        second.attached(),
    ):
        pass
    with second.attached():
        pass


def test_a_program_for_another_pipeline_is_refused(pipeline: Any) -> None:
    program = flux_program("11", fn=4, bn=3)
    with pytest.raises(ProgramMismatchError, match="exceed the 6 blocks"):
        check(pipeline, program)
    column = flux_program("11").columns[0]
    for wrong, message in (
        (Program((replace(column, target="transformer_2"),), program.steps), "no transformer_2"),
        (
            Program((replace(column, block_lists=("blocks",)),), program.steps),
            "no block list blocks",
        ),
    ):
        with pytest.raises(ProgramMismatchError, match=message):
            check(pipeline, wrong)


def test_more_or_fewer_steps_than_the_program_has_are_an_error(pipeline: Any) -> None:
    execution = Execution({"transformer": pipeline.transformer}, uncached(2))
    with execution.attached(), pytest.raises(ProgramMismatchError, match="more forwards"):
        _plain(pipeline, SPEC, 3)
    execution = Execution({"transformer": pipeline.transformer}, uncached(2))
    with pytest.raises(ProgramMismatchError, match="did not run"):
        execution.end_step()


def _live_tensors() -> int:
    gc.collect()
    # Not scalars: after a cancelled call the pipeline itself keeps its last timestep.
    return sum(issubclass(type(o), Tensor) and o.dim() > 0 for o in gc.get_objects())


def test_cache_memory_ends_with_the_run(pipeline: Any) -> None:
    run(pipeline, flux_program("1?1?", calibrator=TAYLOR), SPEC)
    before = _live_tensors()
    run(pipeline, flux_program("1?1?1?", calibrator=TAYLOR), SPEC)
    answers = iter([False, False, False, False, True])
    with pytest.raises(RunCancelled):
        run(pipeline, flux_program("1?1?"), SPEC, is_cancelled=lambda step: next(answers))
    assert _live_tensors() == before


@pytest.mark.parametrize("stops_at", [None, 4], ids=["ends", "cancelled"])
def test_cache_memory_waits_for_no_collector(pipeline: Any, stops_at: int | None) -> None:
    """Else the next run's cache would have to fit beside it."""
    program = flux_program("1?1?1?", calibrator=TAYLOR)
    gc.collect()
    gc.disable()
    try:
        with nullcontext() if stops_at is None else pytest.raises(RunCancelled):
            run(pipeline, program, SPEC, is_cancelled=lambda step: step == stops_at)
        assert not [o for o in gc.get_objects() if type(o) in (ColumnState, Forward)]
    finally:
        gc.enable()


def test_nothing_is_stored_that_no_later_step_reads(pipeline: Any) -> None:
    def after_each_step(program: Program) -> list[int]:
        counts: list[int] = []
        run(pipeline, program, SPEC, on_step=lambda _: counts.append(_live_tensors()))
        return counts

    after_each_step(uncached(4))
    plain = after_each_step(uncached(4))
    assert after_each_step(flux_program("1111", calibrator=TAYLOR)) == plain
    # A residual for each of the two streams, until the last step that reads them.
    stored = [a - b for a, b in zip(after_each_step(flux_program("1011")), plain, strict=True)]
    assert stored[0] == stored[1] == 2


_STRIPS = st.text("10?", min_size=1, max_size=5).map(lambda strip: "1" + strip)
_RUNS = st.tuples(
    _STRIPS,
    st.integers(0, 3),
    st.sampled_from([None, TaylorSeer(1), FoCa(), Dmd(4)]),
    st.integers(0, 2**32),
    st.sampled_from([16, 32]),
    st.none() | st.integers(0, 4),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(_RUNS, min_size=1, max_size=3))
def test_no_run_leaves_a_trace_for_the_next(pipeline: Any, runs: list[Any]) -> None:
    """Whatever ran, was cancelled or failed before: the next run is as on a fresh pipeline."""
    reference = run(pipeline, flux_program("11?0?"), SPEC).latents
    for strip, bn, forecast, seed, side, stop_after in runs:
        program = flux_program(strip, bn=bn, calibrator=Calibrator(forecast=forecast))
        spec = RunSpec("x", side, side, seed)
        done: list[int] = []

        def on_step(outcome: Any, done: list[int] = done, stop: int | None = stop_after) -> None:
            done.append(outcome.step)
            if stop is not None and len(done) > stop:
                raise KeyError("a failing listener")

        try:
            run(pipeline, program, spec, on_step=on_step)
        except KeyError:
            assert stop_after is not None
    assert torch.equal(run(pipeline, flux_program("11?0?"), SPEC).latents, reference)
