"""``ditplan explain``: the chain of rules that decided a step, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from planner.cli import cli

FLUX = "black-forest-labs/FLUX.1-dev"
WAN = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
CACHE = """\
cache_config:
  max_warmup_steps: 8
  warmup_interval: 2
  max_continuous_cached_steps: 2
  residual_diff_threshold: 0.12
"""


def explain(config: str, *arguments: str, model: str = FLUX) -> Result:
    return CliRunner().invoke(cli, ["explain", "-", "--model", model, *arguments], input=config)


def test_the_chain_ends_with_the_rule_that_decides() -> None:
    result = explain(CACHE, "--step", "9")
    assert result.exit_code == 0
    assert "adaptive, the residual diff decides at run time" in result.stdout
    keys = [line.split()[1:] for line in result.stdout.splitlines() if line[2:3].isdigit()]
    assert keys == [
        ["max_warmup_steps"],
        ["steps_computation_mask"],
        ["max_cached_steps"],
        ["max_continuous_cached_steps"],
        ["residual_diff_threshold", "(decides)"],
    ]


@pytest.mark.parametrize("backend", ["", "flash"])
def test_the_attention_backend_is_told_where_the_plan_names_one(backend: str) -> None:
    config = f"attention_backend: {backend}\n{CACHE}"
    text = explain(config, "--step", "9").stdout.replace("\n", " ")
    assert ("attention_backend flash" in text.replace("\xa0", " ")) == bool(backend)
    document = json.loads(explain(config, "--step", "9", "--format", "json").stdout)
    assert document["attention_backend"] == (backend or None)


def test_columns_alike_are_told_once_and_the_others_that_they_do_not_run() -> None:
    text = explain(CACHE, "--step", "18", "--negative-prompt", model=WAN).stdout
    assert "transformer: does not run in this step, only in 0-15" in text
    assert "transformer_2: full, warm-up" in text
    assert "counted from step 16, where this transformer begins: step 18 is its step 2" in text


def test_a_refresh_is_where_counting_starts() -> None:
    text = explain(CACHE + "  force_refresh_step_hint: 10\n", "--step", "13").stdout
    assert "counted from step 10, where the cache starts anew: step 13 is its step 3" in text


def test_without_a_cache_it_says_so() -> None:
    text = explain("", "--step", "3").stdout
    assert "full, no cache is configured" in text
    assert "1." not in text.partition("full")[2]


@pytest.mark.parametrize("step", ["-1", "28"])
def test_a_step_out_of_range_is_refused_with_the_range(step: str) -> None:
    result = explain(CACHE, "--step", step)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "steps 0 to 27" in " ".join(result.stderr.split())


def test_steps_of_the_request_are_the_range() -> None:
    assert explain(CACHE, "--step", "39", "--steps", "40").exit_code == 0


def test_json_holds_every_column_and_test() -> None:
    document = json.loads(explain(CACHE, "--step", "18", "--format", "json", model=WAN).stdout)
    assert document["step"] == 18
    assert len(document["plan_id"]) == 64
    assert [column["kind"] for column in document["columns"]] == [None, None, "FULL", "FULL"]
    assert document["columns"][2]["tests"] == [
        {"key": "max_warmup_steps", "says": "within the 8 warm-up steps", "decides": True}
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_error_in_the_config_is_shown_and_explains_nothing(form: str) -> None:
    result = explain("cache_config: 3\n", "--step", "3", "--format", form)
    assert result.exit_code == 2
    if form == "json":
        document = json.loads(result.stdout)
        assert (document["plan_id"], document["columns"]) == (None, [])
        assert document["diagnostics"]
    else:
        assert result.stdout == ""
        assert "<stdin>:1:" in result.stderr


def test_inputs_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    assert "known" in explain(CACHE, "--step", "3", model="nobody/nothing").stderr
    missing = CliRunner().invoke(
        cli, ["explain", str(tmp_path / "gone.yaml"), "--model", FLUX, "--step", "3"]
    )
    assert (missing.exit_code, "gone.yaml" in missing.stderr) == (2, True)
    plan = CliRunner().invoke(cli, ["explain", "plan.binpb", "--model", FLUX, "--step", "3"])
    assert (plan.exit_code, "plan.binpb: is a plan, not a config" in plan.stderr) == (2, True)


@pytest.mark.parametrize("step", range(28))
def test_lines_fit_eighty_columns(step: int) -> None:
    config = CACHE + "  steps_computation_mask: fast\n  force_refresh_step_hint: 10\n"
    lines = explain(config, "--step", str(step), model=WAN).stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_a_limit_on_the_sum_of_diffs_is_one_of_the_tests() -> None:
    config = CACHE + "  max_accumulated_residual_diff_threshold: 0.5\n"
    text = explain(config, "--step", "18").stdout
    assert "max_accumulated_residual_diff_threshold\n" in text
    assert "decided at run time: computed once the diffs sum up to 0.5" in text
