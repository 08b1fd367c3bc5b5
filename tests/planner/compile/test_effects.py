"""What is given but changes nothing is said, at the key that it is about."""

from __future__ import annotations

import pytest

from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

BASE = "max_warmup_steps: 1"


@pytest.fixture(scope="module")
def wan22() -> ModelFacts:
    return from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")


def idle(keys: str, model: ModelFacts) -> list[str]:
    compilation = compile_config(f"cache_config: {{{BASE}, {keys}}}", model, Request(20))
    assert compilation.program is not None, compilation.diagnostics
    assert {d.severity for d in compilation.diagnostics} <= {Severity.HINT}
    assert all(d.column > 30 for d in compilation.diagnostics)
    prefix = "cache_config."
    return [d.field.removeprefix(prefix) for d in compilation.diagnostics]


@pytest.mark.parametrize(
    "keys",
    [
        "taylorseer_order: 2",
        "enable_encoder_taylorseer: true",
        "dmd_rank: 2",
        "enable_encoder_dmd: false",
        "enable_encoder_foca: true",
        "calibrator_cache_type: hidden_states",
        "steps_computation_policy: static",
        "force_refresh_step_policy: repeat",
        "force_refresh_step_hint: 20",
        "cfg_diff_compute_separate: false",
        "max_accumulated_residual_diff_threshold: -1",
    ],
)
def test_a_key_without_effect(keys: str, flux: ModelFacts) -> None:
    assert idle(keys, flux) == [keys.split(":")[0]]


@pytest.mark.parametrize(
    "keys",
    [
        "taylorseer_order: 1",
        "taylorseer_order: 2, enable_taylorseer: true",
        "calibrator_cache_type: hidden_states, enable_foca: true",
        "force_refresh_step_hint: 19, force_refresh_step_policy: repeat",
        "max_accumulated_residual_diff_threshold: 1",
    ],
)
def test_defaults_and_keys_with_an_effect_are_fine(keys: str, flux: ModelFacts) -> None:
    assert idle(keys, flux) == []


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        ("taylorseer_order: 2, secondary: {enable_taylorseer: true}", []),
        ("taylorseer_order: 2, secondary: {max_warmup_steps: 2}", ["taylorseer_order"]),
        ("secondary: {taylorseer_order: 2}", ["secondary.taylorseer_order"]),
    ],
)
def test_either_transformer_may_have_the_use(
    keys: str, fields: list[str], wan22: ModelFacts
) -> None:
    assert idle(keys, wan22) == fields
