"""A second transformer may have its own share of the cache's keys, and shares the rest."""

from __future__ import annotations

import pytest

from planner.compile.compiler import Compilation, compile_config
from planner.compile.explanation import explain_step
from planner.compile.plan import AdaptiveRule, Op, TaylorSeer
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

REQUEST = Request(20)


@pytest.fixture(scope="module")
def wan22() -> ModelFacts:
    return from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")


def compiled(second: str, model: ModelFacts, base: str = "Fn_compute_blocks: 2") -> Compilation:
    config = f"cache_config: {{max_warmup_steps: 2, {base}, secondary: {{{second}}}}}"
    return compile_config(config, model, REQUEST)


def rule(compilation: Compilation, column: int) -> AdaptiveRule:
    assert compilation.program is not None, compilation.diagnostics
    ops: list[Op] = [op for step in compilation.program.steps if (op := step[column])]
    return next(op.adaptive for op in ops if op.adaptive)


def test_what_is_given_replaces_and_the_rest_stays(wan22: ModelFacts) -> None:
    compilation = compiled("residual_diff_threshold: 0.3, enable_taylorseer: true", wan22)
    assert compilation.program is not None
    first, second = compilation.program.columns[0], compilation.program.columns[-1]
    assert (first.target, second.target) == ("transformer", "transformer_2")
    assert (first.fn_compute_blocks, second.fn_compute_blocks) == (2, 2)
    assert rule(compilation, 0).residual_diff_threshold == 0.08
    assert rule(compilation, -1).residual_diff_threshold == 0.3
    assert first.calibrator is not None
    assert second.calibrator is not None
    assert first.calibrator.forecast is None
    assert second.calibrator.forecast == TaylorSeer(1)


def test_a_value_that_equals_a_default_is_given_all_the_same(wan22: ModelFacts) -> None:
    program = compiled("Fn_compute_blocks: 8", wan22).program
    assert program is not None
    assert [column.fn_compute_blocks for column in program.columns] == [2, 2, 8, 8]


def test_null_keeps_the_value_of_the_first(wan22: ModelFacts) -> None:
    program = compiled("Fn_compute_blocks: null", wan22).program
    assert program is not None
    assert program.columns[-1].fn_compute_blocks == 2


@pytest.mark.parametrize(
    ("second", "code", "field"),
    [
        ("Fn_compute_blocks: 99", "too-many-compute-blocks", "Fn_compute_blocks"),
        ("Fn_compute_blocks: 0", "invalid-value", "Fn_compute_blocks"),
        ("Fn_compute_block: 1", "unknown-key", "Fn_compute_block"),
        ("steps_computation_mask: fast", "unknown-key", "steps_computation_mask"),
        ("enable_foca: true, enable_dmd: true", "several-calibrators", "enable_foca"),
    ],
)
def test_a_fault_is_said_once_where_it_stands(
    second: str, code: str, field: str, wan22: ModelFacts
) -> None:
    (found,) = compiled(second, wan22).diagnostics
    assert (found.code, found.field) == (code, f"cache_config.secondary.{field}")
    assert found.column > 40


def test_a_fault_of_both_is_said_at_the_base(wan22: ModelFacts) -> None:
    found = compiled("max_cached_steps: 3", wan22, "enable_foca: true, enable_dmd: true")
    assert [d.field for d in found.diagnostics] == ["cache_config.enable_foca"]


def test_one_transformer_has_no_use_for_it(flux: ModelFacts) -> None:
    found = compiled("Fn_compute_blocks: 99", flux).diagnostics
    assert [d.code for d in found] == ["no-second-transformer"]


def test_explain_follows_the_rule_of_each(wan22: ModelFacts) -> None:
    config = "cache_config: {max_warmup_steps: 1, secondary: {max_warmup_steps: 99}}"
    accounts = explain_step(config, wan22, REQUEST, 19).accounts
    assert accounts[0].op is None
    assert accounts[-1].tests[-1].key == "max_warmup_steps"
