"""An explanation of a step tells the tests that made the op that stands in the plan."""

from __future__ import annotations

import pytest

from planner.compile.compiler import compile_config
from planner.compile.explanation import Account, StepRangeError, explain_step
from planner.compile.plan import OpKind, Reason
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

CACHE = """\
cache_config:
  max_warmup_steps: 8
  warmup_interval: 2
  max_continuous_cached_steps: 2
  residual_diff_threshold: 0.12
"""
CONFIGS = [
    "",
    CACHE,
    CACHE + "  steps_computation_mask: fast\n",
    CACHE + "  steps_computation_mask: fast\n  steps_computation_policy: static\n",
    CACHE + "  max_cached_steps: 3\n",
    CACHE + "  secondary:\n    max_warmup_steps: 2\n    residual_diff_threshold: 1\n",
    CACHE + "  force_refresh_step_hint: 10\n  force_refresh_step_policy: repeat\n",
]


@pytest.fixture(scope="module")
def wan() -> ModelFacts:
    return from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")


def account_of(config: str, model: ModelFacts, step: int) -> Account:
    """The account of the first column that runs in the step."""
    accounts = explain_step(config, model, Request(28), step).accounts
    return next(account for account in accounts if account.op is not None)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", ["flux", "wan"])
def test_the_test_that_decides_is_the_reason_in_the_plan(
    config: str, name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    compilation = compile_config(config, model, Request(28))
    assert compilation.program is not None
    for step, ops in enumerate(compilation.program.steps):
        explanation = explain_step(config, model, Request(28), step)
        assert explanation.compilation == compilation
        assert tuple(account.op for account in explanation.accounts) == ops
        for account in explanation.accounts:
            *before, decides = account.tests or (None,)
            assert all(test.kind is None for test in before if test)
            if decides is not None:
                assert account.op is not None
                assert (decides.kind, decides.reason) == (account.op.kind, account.op.reason)


def test_tests_are_told_in_the_order_of_the_rule(flux: ModelFacts) -> None:
    assert [test.key for test in account_of(CACHE, flux, 9).tests] == [
        "max_warmup_steps",
        "steps_computation_mask",
        "max_cached_steps",
        "max_continuous_cached_steps",
        "residual_diff_threshold",
    ]


def test_without_a_cache_there_is_no_test(flux: ModelFacts) -> None:
    account = account_of("", flux, 9)
    assert account.op is not None
    assert account.op.reason is Reason.NO_CACHE
    assert account.tests == ()


def test_a_transformer_counts_its_own_steps(wan: ModelFacts) -> None:
    own = wan.steps_of("transformer_2", 28)
    first, *_, second = explain_step(CACHE, wan, Request(28), own.start).accounts
    assert first == Account(None, wan.steps_of("transformer", 28))
    assert second.steps == own
    assert second.counted_from == own.start
    assert [test.reason for test in second.tests] == [Reason.WARMUP]


def test_a_refresh_counts_anew(flux: ModelFacts) -> None:
    config = CACHE + "  force_refresh_step_hint: 10\n  force_refresh_step_policy: repeat\n"
    counted = [account_of(config, flux, step).counted_from for step in (9, 10, 19, 20, 27)]
    assert counted == [0, 10, 10, 20, 20]
    assert account_of(config, flux, 20).tests[-1].kind is OpKind.FULL


def test_a_failed_compilation_explains_nothing(flux: ModelFacts) -> None:
    explanation = explain_step("cache_config: 3", flux, Request(28), 3)
    assert explanation.compilation.program is None
    assert explanation.accounts == ()


@pytest.mark.parametrize("step", [-1, 28, 10**30])
def test_a_step_out_of_range_is_told_the_range(flux: ModelFacts, step: int) -> None:
    with pytest.raises(StepRangeError, match="steps 0 to 27"):
        explain_step(CACHE, flux, Request(28), step)
