"""What ops ask of host and memory, beyond the blocks that they compute."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from executor.engine.execution import Execution
from executor.engine.program import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Program,
    TaylorSeer,
)
from tests.executor.engine.counting import Counting
from tests.executor.engine.programs import flux_program

IMAGE, TEXT, WIDTH = 16, 8, 64
STREAMS = 4 * WIDTH * (IMAGE + TEXT)
HIDDEN = 4 * WIDTH * IMAGE

TAYLOR = Calibrator(forecast=TaylorSeer(1), encoder=True)
CACHES, COMPUTES = AdaptiveRule(0.99), AdaptiveRule(1e-12)


def _inputs(transformer: Any, step: int) -> dict[str, Any]:
    """Arguments that change a little from step to step."""
    torch.manual_seed(0)
    latents = torch.randn(1, IMAGE, transformer.config.in_channels)
    return {
        "hidden_states": latents * (1 + 0.01 * step),
        "encoder_hidden_states": torch.randn(1, TEXT, transformer.config.joint_attention_dim),
        "pooled_projections": torch.randn(1, transformer.config.pooled_projection_dim),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.zeros(IMAGE, 3),
        "txt_ids": torch.zeros(TEXT, 3),
        "return_dict": False,
    }


@torch.no_grad()
def _counts(transformer: Any, program: Program) -> list[tuple[int, int, int]]:
    """For every step: host reads, bytes allocated, and bytes that the step leaves behind."""
    execution = Execution({"transformer": transformer}, program)
    counting = Counting()
    totals = [(0, 0, 0)]
    with execution.attached():
        for step, ops in enumerate(program.steps):
            arguments = _inputs(transformer, step)
            with counting:
                for _ in ops:
                    transformer(**arguments)
                execution.end_step()
            totals.append((counting.host_reads, counting.allocated_bytes, counting.held_bytes))
    return [
        (after[0] - before[0], after[1] - before[1], after[2] - before[2])
        for before, after in pairwise(totals)
    ]


@torch.no_grad()
def _blocks_alone(transformer: Any, *, first: int) -> int:
    """Bytes that a forward of the first blocks alone allocates without a run."""
    arguments = _inputs(transformer, 0)

    def passing(hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> Any:
        return encoder_hidden_states, hidden_states

    lists = (transformer.transformer_blocks, transformer.single_transformer_blocks)
    skipped = [block for blocks in lists for block in blocks][first:]
    for block in skipped:
        block.forward = passing
    try:
        with Counting() as counting:
            transformer(**arguments)
    finally:
        for block in skipped:
            del block.forward
    return counting.allocated_bytes


@pytest.mark.parametrize("calibrator", [Calibrator(), TAYLOR], ids=["reuse", "taylorseer"])
@pytest.mark.parametrize("bn", [0, 1])
def test_decided_ops_read_nothing_back_to_the_host(
    pipeline: Any, calibrator: Calibrator, bn: int
) -> None:
    program = flux_program("1111001010", bn=bn, calibrator=calibrator)
    assert [reads for reads, _, _ in _counts(pipeline.transformer, program)] == [0] * 10


@pytest.mark.parametrize("rule", [CACHES, COMPUTES], ids=["caches", "computes"])
def test_an_evaluated_adaptive_op_reads_back_one_value(pipeline: Any, rule: AdaptiveRule) -> None:
    program = flux_program("11???", rule=rule)
    assert [reads for reads, _, _ in _counts(pipeline.transformer, program)] == [0, 0, 1, 1, 1]


def test_an_adaptive_op_that_a_limit_decides_reads_nothing(pipeline: Any) -> None:
    program = flux_program("1???", rule=replace(CACHES, max_cached_steps=1))
    assert [reads for reads, _, _ in _counts(pipeline.transformer, program)] == [0, 1, 0, 0]


@pytest.mark.parametrize(("shared", "reads"), [(True, 1), (False, 2)])
def test_branches_that_share_a_diff_read_it_once(pipeline: Any, shared: bool, reads: int) -> None:
    one = flux_program("1???", rule=CACHES)
    [column] = one.columns
    unconditional = replace(column, branch=Branch.UNCOND, reuses_cond_diff=shared)
    two = Program((column, unconditional), tuple((op, op) for (op,) in one.steps))
    found = [reads for reads, _, _ in _counts(pipeline.transformer, two)]
    assert found == [0, reads, reads, reads]


@pytest.mark.parametrize(
    ("strip", "calibrator", "stored"),
    [
        ("1110", Calibrator(), STREAMS),
        # A test reads what the first block changed, too.
        ("111?0", Calibrator(), STREAMS + HIDDEN),
        # A value and its slope, from the fourth forward on.
        ("1111110", TAYLOR, 2 * STREAMS),
    ],
    ids=["reuse", "tested", "taylorseer"],
)
def test_a_computed_op_allocates_what_it_stores_and_no_more(
    pipeline: Any, strip: str, calibrator: Calibrator, stored: int
) -> None:
    alone = _blocks_alone(pipeline.transformer, first=6)
    counts = _counts(pipeline.transformer, flux_program(strip, calibrator=calibrator))
    last = strip.rindex("11") + 1
    assert counts[last][1] - alone == stored
    assert sum(left for _, _, left in counts[: last + 1]) == stored


def test_a_computed_op_that_nothing_reads_allocates_nothing(pipeline: Any) -> None:
    alone = _blocks_alone(pipeline.transformer, first=6)
    for program in (flux_program("111"), flux_program("1111", fn=3, bn=2, calibrator=TAYLOR)):
        counts = _counts(pipeline.transformer, program)
        assert {(allocated - alone, left) for _, allocated, left in counts} == {(0, 0)}


@pytest.mark.parametrize("fn", [1, 3])
def test_a_cached_op_that_reuses_allocates_its_streams_alone(pipeline: Any, fn: int) -> None:
    alone = _blocks_alone(pipeline.transformer, first=fn)
    *_, first, second = _counts(pipeline.transformer, flux_program("1000", fn=fn))
    assert first[1] - alone == second[1] - alone == STREAMS
    assert (first[2], second[2]) == (0, 0)


def test_a_cached_op_that_reuses_hidden_states_allocates_nothing(pipeline: Any) -> None:
    alone = _blocks_alone(pipeline.transformer, first=1)
    program = flux_program("1000", calibrator=Calibrator(CacheType.HIDDEN_STATES))
    *_, before_last, _ = _counts(pipeline.transformer, program)
    assert before_last[1] - alone == 0


def test_a_forecast_allocates_no_more_than_its_derivatives_take(pipeline: Any) -> None:
    alone = _blocks_alone(pipeline.transformer, first=1)
    for order in (1, 2):
        calibrator = Calibrator(forecast=TaylorSeer(order), encoder=True)
        counts = _counts(pipeline.transformer, flux_program("111111000", calibrator=calibrator))
        stored = sum(left for _, _, left in counts[:6])
        assert stored == (order + 1) * STREAMS
        assert all(allocated - alone <= stored for _, allocated, _ in counts[6:])
