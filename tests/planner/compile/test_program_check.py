"""A program that was not compiled here (a replay, a stored plan) runs as it is, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.compile.compiler import Compilation, compile_config, compile_program
from planner.compile.plan import (
    AdaptiveRule,
    Calibrator,
    Op,
    OpKind,
    Placement,
    Program,
    Reason,
    TaylorSeer,
    Topology,
)
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

CONFIG = """
cache_config: {max_warmup_steps: 2, Fn_compute_blocks: 1, enable_taylorseer: true}
parallelism_config: {ulysses_size: 2}
quantize_config: {quant_type: float8_per_row}
"""


@pytest.fixture(scope="module")
def program() -> Program:
    facts = from_name("black-forest-labs/FLUX.1-dev")
    compiled = compile_config(CONFIG, facts, Request(num_inference_steps=4)).program
    assert compiled is not None
    return compiled


def fields(compilation: Compilation) -> list[str]:
    assert compilation.program is None
    return [d.field for d in compilation.diagnostics]


def test_a_compiled_program_is_taken_as_it_is(program: Program, flux: ModelFacts) -> None:
    compilation = compile_program(program, flux, Request())
    assert compilation.program == program
    assert not compilation.diagnostics
    assert compilation.estimate is not None
    assert compilation.estimate.min_computed_steps == 2
    assert compilation.estimate.max_computed_steps == 4
    assert compilation.request == Request(4, 2, 1024, 1024, None)


def test_halves_run_two_branches_that_wait_for_nothing_of_each_other() -> None:
    wan = from_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    config = "cache_config: {max_warmup_steps: 2, cfg_diff_compute_separate: false}\n"
    alone = compile_config(config, wan, Request(4)).program
    assert alone is not None
    halved = replace(alone, topology=Topology(2, guidance_size=2))
    assert fields(compile_program(halved, wan, Request())) == ["program.columns[1]"]
    cond = replace(
        halved, columns=halved.columns[:1], steps=tuple(step[:1] for step in halved.steps)
    )
    assert fields(compile_program(cond, wan, Request())) == ["program.topology.guidance_size"]
    # Of a record nothing is tested any more.
    record = tuple((replace(FULL, reason=Reason.REPLAY),) * 2 for _ in halved.steps)
    assert compile_program(replace(halved, steps=record), wan, Request()).program is not None


def test_a_record_of_decided_ops_is_a_program(program: Program, flux: ModelFacts) -> None:
    kinds = (OpKind.FULL, OpKind.FULL, OpKind.CACHED, OpKind.FULL)
    record = replace(program, steps=tuple((Op(kind, Reason.REPLAY),) for kind in kinds))
    compilation = compile_program(record, flux, Request(height=512))
    assert compilation.program == record
    assert compilation.estimate is not None
    assert compilation.estimate.min_computed_steps == compilation.estimate.max_computed_steps == 3


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(num_inference_steps=5), "num_inference_steps"),
        (Request(world_size=4), "program.topology.world_size"),
        (Request(height=17), "height"),
        (Request(guidance_scale=-1.0), "guidance_scale"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    request_: Request, expected: str, program: Program, flux: ModelFacts
) -> None:
    assert fields(compile_program(program, flux, request_)) == [expected]


def test_the_steps_of_a_program_are_those_of_its_request(
    program: Program, flux: ModelFacts
) -> None:
    assert compile_program(program, flux, Request(num_inference_steps=4)).program is program


def with_ops(program: Program, *ops: Op | None) -> Program:
    return replace(program, steps=tuple((op,) for op in ops))


def with_column(program: Program, **changes: object) -> Program:
    return replace(program, columns=(replace(program.columns[0], **changes),))  # type: ignore[arg-type]


FULL = Op(OpKind.FULL, Reason.REPLAY)
CACHED = Op(OpKind.CACHED, Reason.REPLAY)


def adaptive(threshold: float, accumulated: float | None = None) -> Op:
    rule = AdaptiveRule(threshold, max_accumulated_residual_diff_threshold=accumulated)
    return Op(OpKind.ADAPTIVE, Reason.DBCACHE, rule)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: replace(p, model=replace(p.model, family="flux2")), "program.model"),
        (lambda p: replace(p, columns=()), "program.columns"),
        (lambda p: replace(p, columns=p.columns * 2), "program.columns"),
        (lambda p: with_column(p, target="transformer_2"), "program.columns"),
        (lambda p: with_column(p, block_lists=("transformer_blocks",)), "program.columns"),
        (lambda p: with_column(p, fn_compute_blocks=58), "program.columns[0]"),
        (lambda p: with_column(p, fn_compute_blocks=0), "program.steps[2].ops[0]"),
        (lambda p: with_column(p, calibrator=None), "program.steps[2].ops[0]"),
        (
            lambda p: with_column(p, calibrator=Calibrator(forecast=TaylorSeer(2**31))),
            "program.columns[0].calibrator.taylorseer_order",
        ),
        (lambda p: with_ops(p, CACHED, FULL), "program.steps[0].ops[0]"),
        (lambda p: with_ops(p, adaptive(0.1), FULL), "program.steps[0].ops[0]"),
        (lambda p: with_ops(p, FULL, None), "program.steps[1].ops[0]"),
        (lambda p: with_ops(p, FULL, replace(CACHED, refresh=True)), "program.steps[1].ops[0]"),
        (lambda p: with_ops(p, FULL, adaptive(float("nan"))), "program.steps[1].ops[0]"),
        (lambda p: with_ops(p, FULL, adaptive(float("inf"))), "program.steps[1].ops[0]"),
        (lambda p: with_ops(p, FULL, adaptive(0.1, 0.0)), "program.steps[1].ops[0]"),
        (lambda p: with_ops(p), "num_inference_steps"),
        (lambda p: with_ops(p, *[FULL] * 1001), "num_inference_steps"),
        (lambda p: replace(p, topology=replace(p.topology, tp_size=2)), "program.topology"),
        (
            lambda p: replace(p, topology=Topology(5, ulysses_size=5)),
            "program.topology",
        ),
        (
            lambda p: replace(p, topology=replace(p.topology, ring_rotate_method="mail")),
            "program.topology.ring_rotate_method",
        ),
        (
            lambda p: replace(p, topology=replace(p.topology, extra_parallel_modules=("unet",))),
            "program.topology.extra_parallel_modules",
        ),
        (
            lambda p: replace(p, topology=Topology(ulysses_float8=True)),
            "program.topology",
        ),
        (
            lambda p: replace(p, topology=Topology(2, ulysses_size=0, tp_size=2)),
            "program.topology.ulysses_size",
        ),
        (
            lambda p: replace(p, placement=Placement("float7")),
            "program.placement.quant_type",
        ),
        (
            lambda p: replace(p, placement=Placement("", ("embed",))),
            "program.placement.exclude_layers",
        ),
    ],
)
def test_what_no_compiler_makes_is_refused(
    change: Callable[[Program], Program], expected: str, program: Program, flux: ModelFacts
) -> None:
    compilation = compile_program(change(program), flux, Request())
    assert fields(compilation)[0] == expected
    assert {d.line for d in compilation.diagnostics} == {0}
