"""Whole pipelines of every family under the engine, called as diffusers calls them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from executor.engine.execution import Execution
from executor.engine.families import FAMILIES
from executor.engine.pipelines import PIPELINES
from executor.engine.program import Branch, Calibrator, Column, Op, OpKind, Program
from executor.placement.load import load
from tests.executor import tiny
from tests.executor.engine.whole_runs import CASES, branches, built, plain, program_of, run_of

RUNS = [
    pytest.param(name, guided, id=f"{name}-{'guided' if guided else 'one-forward'}")
    for name, case in CASES.items()
    for guided in (False, True)
    if (case.guided if guided else case.plain) is not None
]


def test_every_family_and_pipeline_is_here() -> None:
    assert {case.pipeline_class for case in CASES.values()} >= PIPELINES.keys()
    targets = {
        type(getattr(built(name), target)).__name__
        for name, case in CASES.items()
        for target in case.targets
    }
    assert targets == FAMILIES.keys()


@pytest.mark.parametrize(("name", "guided"), RUNS)
def test_computed_steps_equal_plain_diffusers_bit_for_bit(name: str, guided: bool) -> None:
    run = run_of(built(name), name, guided, program_of(name, guided, "1111", fn=1, bn=1))
    uncached = plain(name, guided)
    assert torch.equal(run.latents, uncached.latents)
    assert run.blocks == uncached.blocks
    assert uncached.forwards == [
        (step, target) for step, target in enumerate(CASES[name].targets) for _ in branches(guided)
    ]


@pytest.mark.parametrize(("name", "guided"), RUNS)
def test_cached_steps_differ_and_skip_the_middle_blocks(name: str, guided: bool) -> None:
    program = program_of(name, guided, "1010", fn=1, bn=1)
    pipeline = built(name)
    run, uncached = run_of(pipeline, name, guided, program), plain(name, guided)
    assert run.latents.isfinite().all()
    # Not by the last bits alone: what the skipped blocks do matters.
    assert (run.latents - uncached.latents).abs().max() > 1e-3 * uncached.latents.abs().max()
    expected = Counter[str]()
    for step in program.steps:
        for column, op in zip(program.columns, step, strict=True):
            if op is not None:
                target = getattr(pipeline, column.target)
                count = sum(len(getattr(target, blocks)) for blocks in column.block_lists)
                expected[column.target] += count if op.kind is OpKind.FULL else 2
    assert run.blocks == expected
    assert [[op and op.kind for op in step] for step in run.outcomes] == [
        [op and op.kind for op in step] for step in program.steps
    ]


@pytest.mark.parametrize(("name", "guided"), RUNS)
def test_residual_diffs_are_neither_zero_nor_absurd(name: str, guided: bool) -> None:
    """Of tiny weights, blocks must still do something that depends on the step."""
    program = program_of(name, guided, "1?1?", fn=1, bn=1)
    run = run_of(built(name), name, guided, program)
    assert torch.equal(run.latents, plain(name, guided).latents)
    for i in (1, 3):
        diffs = [op.residual_diff for op in run.outcomes[i] if op is not None]
        assert diffs
        assert all(diff is not None and 1e-4 < diff < 10 for diff in diffs), diffs


@pytest.mark.parametrize("name", CASES)
def test_a_cached_forward_of_equal_inputs_is_the_computed_one(name: str) -> None:
    """Each stream gets back what the skipped blocks made of it, and of no other stream."""
    case, pipeline = CASES[name], built(name)
    inputs = _inputs_of_a_forward(pipeline, name)
    transformer = getattr(pipeline, case.targets[0])
    columns = tuple(
        Column(case.targets[0], Branch.COND, group, 1, 1, Calibrator()) for group in case.groups
    )
    steps = tuple((Op(kind),) * len(columns) for kind in (OpKind.FULL, OpKind.CACHED))
    execution = Execution({case.targets[0]: transformer}, Program(columns, steps))
    results = []
    with torch.no_grad(), execution.attached():
        for _ in steps:
            result = transformer(*inputs[0], **inputs[1])[0]
            results.append(result if isinstance(result, Tensor) else torch.stack(result))
            execution.end_step()
    computed, cached = results
    torch.testing.assert_close(cached, computed, rtol=0, atol=1e-4 * float(computed.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_prompts_reach_the_blocks(name: str) -> None:
    """No template or padding cuts them off."""
    guided = CASES[name].plain is None
    other = run_of(built(name), name, guided, prompt="some dog")
    assert not torch.equal(other.latents, plain(name, guided).latents)
    case = CASES[name]
    if "negative_prompt" in (case.guided or {}):
        assert case.guided is not None
        other = run_of(built(name), name, True, negative_prompt="some red")
        assert not torch.equal(other.latents, plain(name, True).latents)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.pipeline_class in PIPELINES]
)
def test_a_loaded_pipeline_computes_the_same(name: str, tmp_path: Path) -> None:
    guided = CASES[name].plain is None
    case = CASES[name]
    tiny.save(tmp_path, case.pipeline_class, **case.options)
    pipeline = case.prepare(load(str(tmp_path)).pipeline)
    assert torch.equal(run_of(pipeline, name, guided).latents, plain(name, guided).latents)


def _inputs_of_a_forward(pipeline: Any, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the pipeline gives its transformer in its first forward."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    transformer = getattr(pipeline, CASES[name].targets[0])
    handle = transformer.register_forward_pre_hook(
        lambda _, args, kwargs: found.append((args, kwargs)), with_kwargs=True
    )
    try:
        run_of(pipeline, name, CASES[name].plain is None)
    finally:
        handle.remove()
    return found[0]
