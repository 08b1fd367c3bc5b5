"""The text of a plan says what every step does, why, and within which bounds."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from planner.compile.compiler import Compilation
from planner.compile.plan import AdaptiveRule, Branch, Op, OpKind, Placement, Reason, Topology
from planner.compile.request import Request
from planner.diagnostics import Diagnostic, Severity
from planner.render.canvas import display_width
from planner.render.summary import spans
from planner.render.text import render_text

PLAN_ID = "0123456789ab" + "c" * 52
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def text_of(compilation: Compilation, **options: Any) -> str:
    plan_id = PLAN_ID if compilation.program else None
    return render_text(compilation, plan_id, source="", source_name="cache.yaml", **options)


def strip_of(text: str, label: str) -> str:
    """The glyphs of a column over all bands."""
    rows = [line for line in text.splitlines() if line.startswith(f"  {label}  ")]
    return "".join(row.removeprefix(f"  {label}  ").replace(" ", "") for row in rows)


def test_the_strip_shows_every_step_by_its_kind(flux: Compilation) -> None:
    assert strip_of(text_of(flux), "transformer") == "█▒█▒█▒█" + "▒" * 21


def test_kinds_differ_without_colour_and_without_unicode(expert_pair: Compilation) -> None:
    text = text_of(expert_pair, ascii=True)
    assert text.isascii()
    assert strip_of(text, "transformer cond double") == "#."
    assert "# full   . cached   blank: does not run" in text


def test_ascii_shows_adaptive_steps_by_a_third_sign(flux: Compilation) -> None:
    text = text_of(flux, ascii=True)
    assert strip_of(text, "transformer") == "#?#?#?#" + "?" * 21
    assert "? adaptive" in text


def test_a_column_has_a_row_only_where_it_runs(expert_pair: Compilation) -> None:
    rows = text_of(expert_pair).splitlines()
    ruler = next(line for line in rows if line.strip() == "0")
    second = next(line for line in rows if line.startswith("  transformer_2 uncond "))
    assert second.index("█") == ruler.index("0") + 2 * 2, "two cells right of step 0"


def test_the_ruler_stands_above_its_steps(long_flux: Compilation) -> None:
    lines = text_of(long_flux).splitlines()
    ruler = next(line for line in lines if line.strip().startswith("60 "))
    row = lines[lines.index(ruler) + 1]
    first = row.index("▒")
    assert [ruler.index(str(step)) for step in (60, 65, 100)] == [first, first + 5, first + 40]


@pytest.mark.parametrize("width", range(76, 84))
def test_no_number_of_the_ruler_is_cut_off(flux: Compilation, width: int) -> None:
    assert flux.program is not None
    for steps in range(1, 140):
        program = replace(flux.program, steps=flux.program.steps[:1] * steps)
        lines = text_of(replace(flux, program=program), width=width).splitlines()
        numbers = [int(n) for line in lines if re.fullmatch(r"[ \d]+", line) for n in line.split()]
        assert numbers == sorted(set(numbers)), steps
        assert all(n % 5 == 0 for n in numbers), steps


@pytest.mark.parametrize("width", [40, 60, 80, 132])
def test_lines_fit_the_width_and_no_step_is_lost(long_flux: Compilation, width: int) -> None:
    text = text_of(long_flux, width=width)
    lines = [line for line in text.splitlines() if PLAN_ID not in line]
    assert max(map(len, lines)) <= width
    legend = 1
    reasons = 2 - legend
    assert text.count("█") == 4 + legend + reasons
    assert text.count("▒") == 126 + legend + reasons


def test_wide_strips_wrap_at_multiples_of_ten(long_flux: Compilation) -> None:
    text = text_of(long_flux, width=80)
    assert re.findall(r"^ {10,}(\d+) ", text, flags=re.M) == ["0", "60", "120"]


def test_the_reasons_are_told_by_runs_of_steps(flux: Compilation) -> None:
    text = text_of(flux)
    assert re.search(r"█ 0, 2, 4, 6 +warm-up", text)
    assert re.search(r"▒ 1, 3, 5, 7-27 +the residual diff decides at run time", text)


def test_columns_with_the_same_reasons_share_one_account(expert_pair: Compilation) -> None:
    text = text_of(expert_pair)
    assert "transformer cond double, transformer uncond double:" in text
    assert "transformer_2:" in text
    assert len(re.findall(r"warm-up$", text, flags=re.M)) == 3


def test_bounds_are_given_as_bounds(flux: Compilation) -> None:
    text = text_of(flux)
    assert "computes   11 to 28 of 28 steps" in text
    assert "1.00x to 2.55x" in text
    assert "bound, not a promise" in text


def test_a_decided_plan_has_one_number(expert_pair: Compilation) -> None:
    text = text_of(expert_pair)
    assert "computes   3 of 4 steps" in text
    assert "speed-up   1.33x by" in text


def test_what_a_run_should_cost_is_told_as_an_estimate(costly_flux: Compilation) -> None:
    text = " ".join(text_of(costly_flux).split())
    assert "estimate compute: 700 TFLOPs to 1.68 PFLOPs a run, 60.0 TFLOPs in a full step" in text
    assert (
        "memory: at least 25.5 GiB per rank in bfloat16: parameters 22.0 GiB, activations 512 MiB, "
        "cache 3.00 GiB" in text
    )
    assert (
        "exchange: 310 to 616 MiB per rank a run; in a full step all-gather 4.00 MiB, "
        "TP all-reduce 7.00 MiB, Ulysses all-to-all 5.00 MiB, ring 6.00 MiB" in text
    )
    assert "decisions: up to 24 small collectives" in text


def test_the_speed_up_is_by_flops_where_they_are_known(
    flux: Compilation, costly_flux: Compilation
) -> None:
    assert "speed-up   1.00x to 2.40x by FLOPs" in text_of(costly_flux)
    assert "by step count" not in text_of(costly_flux)
    assert "speed-up   1.00x to 2.55x by step count" in text_of(flux)
    assert "estimate" not in text_of(flux)


def test_one_rank_exchanges_nothing(costly_flux: Compilation) -> None:
    assert costly_flux.program is not None
    program = replace(costly_flux.program, topology=Topology())
    text = text_of(replace(costly_flux, program=program))
    assert "memory" in text
    assert "exchange" not in text
    assert "decisions" not in text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0, "0 FLOPs a run"),
        (3, 999, "3 to 999 FLOPs a run"),
        (1000, 2500, "1.00 to 2.50 kFLOPs a run"),
        (999_999, 10**7, "1.00 to 10.0 MFLOPs a run"),
        (10**24, 10**24, "1000000 EFLOPs a run"),
    ],
)
def test_numbers_have_three_digits_and_one_unit(
    costly_flux: Compilation, low: int, high: int, expected: str
) -> None:
    assert costly_flux.estimate is not None
    assert costly_flux.estimate.cost is not None
    cost = replace(costly_flux.estimate.cost, min_flops=low, max_flops=high)
    compilation = replace(costly_flux, estimate=replace(costly_flux.estimate, cost=cost))
    assert f"compute: {expected}" in text_of(compilation)


def test_the_rule_is_told_in_the_key_names_of_the_file(flux: Compilation) -> None:
    text = " ".join(text_of(flux).split())
    assert "residual_diff_threshold 0.12" in text
    assert "max_continuous_cached_steps 2 in a row" in text
    assert "max_cached_steps" not in text.replace("max_continuous_cached_steps", "")
    assert "first 1 and the last 0 of 57 blocks (Fn_compute_blocks, Bn_compute_blocks)" in text
    assert "TaylorSeer of order 1" in text


def test_a_branch_that_decides_by_another_ones_diff_is_told(flux: Compilation) -> None:
    assert flux.program is not None
    (cond,) = flux.program.columns
    uncond = replace(cond, branch=Branch.UNCOND, reuses_cond_diff=True)
    program = replace(
        flux.program,
        columns=(cond, uncond),
        steps=tuple((op, op) for (op,) in flux.program.steps),
    )
    said = "uncond takes the residual diff that cond measured in the same step"
    assert said in " ".join(text_of(replace(flux, program=program)).split())
    assert said not in " ".join(text_of(flux).split())


def test_the_plan_and_its_id_share_a_line(flux: Compilation) -> None:
    for width in range(40, 90):
        assert f"plan {PLAN_ID[:12]}" in text_of(flux, width=width)


def test_every_limit_of_a_rule_is_told(flux: Compilation) -> None:
    rule = AdaptiveRule(0.2, 8, 3, 1.5)
    op = Op(OpKind.ADAPTIVE, Reason.DBCACHE, rule)
    assert flux.program is not None
    program = replace(flux.program, steps=(*flux.program.steps[:7], (op,)))
    text = " ".join(text_of(replace(flux, program=program)).split())
    assert "max_cached_steps 8 in all" in text
    assert "max_accumulated_residual_diff_threshold 1.5" in text


def test_the_topology_is_told_from_two_ranks_on(
    flux: Compilation, expert_pair: Compilation
) -> None:
    assert "topology" not in text_of(flux)
    assert "4 ranks: ulysses_size 2 x tp_size 2, extra_parallel_modules vae" in text_of(expert_pair)


def test_the_ranks_stand_under_the_topology(expert_pair: Compilation) -> None:
    lines = text_of(expert_pair).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("topology"))
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["tp", "0", "1"],
        ["ulysses", "0,", "rank", "0", "1"],
        ["ulysses", "1,", "rank", "2", "3"],
    ]


def test_quantization_and_attention_are_told(expert_pair: Compilation) -> None:
    text = text_of(expert_pair)
    assert "quant_type float8_per_row, exclude_layers embed" in text
    assert "attention_backend native" in text


def test_a_plan_without_a_cache_has_no_cache_rules(flux: Compilation) -> None:
    assert flux.program is not None
    op = Op(OpKind.FULL, Reason.NO_CACHE)
    program = replace(flux.program, steps=((op,),) * 28)
    text = text_of(replace(flux, program=program))
    assert re.search(r"█ 0-27 +no cache is configured", text)
    assert not re.search(r"^(DBCache|blocks|calibrator)", text, flags=re.M)


def test_the_id_is_there_short_and_whole(flux: Compilation) -> None:
    text = text_of(flux)
    assert re.search(rf"plan {PLAN_ID[:12]}$", text, flags=re.M)
    assert f"plan id    {PLAN_ID}" in text


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(28, 1, 512, 768), "28 steps, 768 × 512 pixels, 1 GPU"),
        (Request(1, 2, 64, 64, 3.5), "1 step, 64 × 64 pixels, guidance 3.5, 2 GPUs"),
        (Request(40, 1, 480, 832, None, 81), "40 steps, 832 × 480 pixels, 81 frames, 1 GPU"),
        (Request(40, 1, 480, 832, None, 1), "40 steps, 832 × 480 pixels, 1 frame, 1 GPU"),
        (
            Request(50, 4, 64, 64, 4.0, None, negative_prompt=True),
            "50 steps, 64 × 64 pixels, guidance 4, a negative prompt, 4 GPUs",
        ),
    ],
)
def test_the_request_is_told_in_a_line(flux: Compilation, request_: Request, words: str) -> None:
    assert text_of(replace(flux, request=request_), width=120).splitlines()[1] == (
        f"{words}, plan {PLAN_ID[:12]}"
    )


def test_colour_changes_nothing_but_colour(expert_pair: Compilation) -> None:
    coloured = text_of(expert_pair, color=True)
    assert "\x1b[" in coloured
    assert ANSI.sub("", coloured) == text_of(expert_pair)


def test_control_characters_of_the_model_name_are_shown_not_sent(flux: Compilation) -> None:
    text = text_of(flux, model="evil\x1b[31m\nname")
    assert "\x1b" not in text
    assert r"evil\x1b[31m\nname" in text


def test_a_failed_compilation_shows_its_diagnostics_only(flux: Compilation) -> None:
    error = Diagnostic(Severity.ERROR, "bad", "cache_config", "it is wrong")
    failed = Compilation(None, None, flux.request, (error,))
    text = text_of(failed)
    assert text.startswith("error[bad]: it is wrong")
    assert text.endswith("no plan: 1 error\n")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7, 8, 9], "0, 2-3, 7-9")],
)
def test_spans_join_runs(steps: list[int], expected: str) -> None:
    assert spans(steps) == expected


def test_a_band_shows_only_what_runs_in_it(expert_pair: Compilation) -> None:
    program = expert_pair.program
    assert program is not None
    first, _, last, _ = program.steps
    long = replace(expert_pair, program=replace(program, steps=(first,) * 30 + (last,) * 30))
    bands = text_of(long, width=40).split("\n\n")[1:4]
    assert ["double" in band for band in bands] == [True, False, False]
    assert ["transformer_2" in band for band in bands] == [False, True, False]


def test_wide_characters_count_twice_where_lines_break(flux: Compilation) -> None:
    assert flux.program is not None
    layers = tuple("埋め込み層" for _ in range(20))
    program = replace(flux.program, placement=Placement("float8_per_row", layers))
    lines = text_of(replace(flux, program=program), width=60).splitlines()
    wide = [line for line in lines if "埋め込み層" in line]
    assert len(wide) > 3
    assert max(map(display_width, wide)) <= 60
