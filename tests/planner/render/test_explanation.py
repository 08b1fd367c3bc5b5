"""The explanation of a step tells each column's tests, equal ones once, the deciding one marked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.compiler import Compilation
from planner.compile.explanation import Account, Explanation, RuleTest
from planner.compile.plan import Branch, OpKind, Reason
from planner.render.explanation import explanation_document, render_explanation

PLAN_ID = "0123456789ab" + "c" * 52
PASSED = RuleTest("max_warmup_steps", "warm-up ends before step 1")
DECIDES = RuleTest(
    "steps_computation_policy", "static: the mask decides", OpKind.CACHED, Reason.SCM_CACHE
)


@pytest.fixture
def pair(expert_pair: Compilation) -> Explanation:
    """Step 3, in which the first transformer does not run."""
    assert expert_pair.program is not None
    own = {"transformer": range(2), "transformer_2": range(2, 4)}
    accounts = tuple(
        Account(op, own[column.target], 2 if op else 0, (PASSED, DECIDES) if op else ())
        for column, op in zip(
            expert_pair.program.columns, expert_pair.program.steps[3], strict=True
        )
    )
    return Explanation(expert_pair, 3, accounts)


def text_of(explanation: Explanation, **options: int | bool) -> str:
    return render_explanation(explanation, PLAN_ID, model="some/model", **options)  # type: ignore[arg-type]


def test_tests_are_numbered_and_the_last_one_decides(pair: Explanation) -> None:
    assert text_of(pair).partition("\n\n· ")[2] == (
        "transformer_2: cached, the steps computation mask says cache, policy static\n"
        "  counted from step 2, where this transformer begins: step 3 is its step 1\n"
        "  1. max_warmup_steps\n"
        "     warm-up ends before step 1\n"
        "  2. steps_computation_policy (decides)\n"
        "     static: the mask decides\n"
    )


def test_what_does_not_run_says_when_it_does(pair: Explanation) -> None:
    assert "transformer: does not run in this step, only in 0-1" in text_of(pair)
    never = replace(pair, accounts=(Account(None, range(0)),) * 4 + pair.accounts[4:])
    assert "does not run in this step\n" in text_of(never)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_lines_fit_and_ascii_is_enough(pair: Explanation, width: int) -> None:
    text = text_of(pair, width=width, ascii=True)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= width


def test_a_branch_that_decides_by_another_ones_diff_is_told(flux: Compilation) -> None:
    assert flux.program is not None
    uncond = replace(flux.program.columns[0], branch=Branch.UNCOND, reuses_cond_diff=True)
    compilation = replace(flux, program=replace(flux.program, columns=(uncond,)))
    said = "uncond takes the residual diff that cond measured"
    for step, expected in ((0, False), (1, True)):
        account = Account(flux.program.steps[step][0], range(28))
        text = text_of(Explanation(compilation, step, (account,)))
        assert (said in " ".join(text.split())) is expected


def test_the_document_has_a_column_for_every_column(pair: Explanation) -> None:
    document = explanation_document(pair, PLAN_ID, model="some/model")
    assert [column["kind"] for column in document["columns"]] == [None] * 4 + ["CACHED"] * 2
    assert document["columns"][4]["counted_from"] == 2
    assert [test["decides"] for test in document["columns"][4]["tests"]] == [False, True]


def test_a_failed_compilation_has_no_text(pair: Explanation) -> None:
    failed = replace(pair, compilation=replace(pair.compilation, program=None), accounts=())
    with pytest.raises(ValueError, match="no step"):
        text_of(failed)
    assert explanation_document(failed, None, model="m")["columns"] == []
