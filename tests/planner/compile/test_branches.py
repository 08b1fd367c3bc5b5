"""Steps of more than one forward, and runs that two transformers share."""

from __future__ import annotations

import pytest

from planner.compile.compiler import Compilation, compile_config, compile_program
from planner.compile.plan import Branch, OpKind, Program, Reason
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name

CACHE = "cache_config: {max_warmup_steps: 4, Fn_compute_blocks: 1, max_continuous_cached_steps: 2"


@pytest.fixture(scope="module")
def qwen() -> ModelFacts:
    return from_name("Qwen/Qwen-Image")


@pytest.fixture(scope="module")
def wan22() -> ModelFacts:
    return from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")


def _compiled(config: str, model: ModelFacts, request: Request) -> tuple[Program, Compilation]:
    compilation = compile_config(config, model, request)
    assert compilation.program is not None, compilation.diagnostics
    return compilation.program, compilation


def _codes(compilation: Compilation) -> list[str]:
    return [d.code for d in compilation.diagnostics]


def _strip(program: Program, c: int) -> str:
    letters = {OpKind.FULL: "1", OpKind.CACHED: "0", OpKind.ADAPTIVE: "?"}
    return "".join(letters[op.kind] if (op := step[c]) else " " for step in program.steps)


def test_the_request_decides_how_many_branches_there_are(qwen: ModelFacts) -> None:
    """Not the class of the model, and not the key of the file."""
    guided = Request(8, guidance_scale=4.0, negative_prompt=True)
    for request, branches in (
        (guided, [Branch.COND, Branch.UNCOND]),
        (Request(8, guidance_scale=4.0), [Branch.COND]),
        (Request(8, guidance_scale=1.0, negative_prompt=True), [Branch.COND]),
    ):
        for config in ("", CACHE + "}", CACHE + ", enable_separate_cfg: true}"):
            program, _ = _compiled(config, qwen, request)
            assert [column.branch for column in program.columns] == branches
    assert "two-branches" in _codes(
        compile_config(CACHE + ", enable_separate_cfg: false}", qwen, guided)
    )
    assert "one-branch" in _codes(
        compile_config(CACHE + ", enable_separate_cfg: true}", qwen, Request(8))
    )


def test_both_branches_follow_the_rule_and_a_step_counts_once(qwen: ModelFacts) -> None:
    program, compilation = _compiled(
        CACHE + "}", qwen, Request(10, guidance_scale=4.0, negative_prompt=True)
    )
    assert [_strip(program, c) for c in (0, 1)] == ["1111??????"] * 2
    assert compilation.estimate is not None
    assert compilation.estimate.min_computed_steps == 4 + 2
    assert compilation.estimate.max_computed_steps == 10


def test_the_unconditional_branch_may_come_first_and_may_reuse_the_diff(qwen: ModelFacts) -> None:
    request = Request(8, guidance_scale=4.0, negative_prompt=True)
    shared = CACHE + ", cfg_diff_compute_separate: false"
    program, _ = _compiled(shared + "}", qwen, request)
    assert [c.reuses_cond_diff for c in program.columns] == [False, True]
    program, _ = _compiled(shared + ", cfg_compute_first: true}", qwen, request)
    assert [c.branch for c in program.columns] == [Branch.UNCOND, Branch.COND]
    assert not any(c.reuses_cond_diff for c in program.columns)


def test_a_refresh_hint_counts_forwards(qwen: ModelFacts) -> None:
    request = Request(12, guidance_scale=4.0, negative_prompt=True)
    program, _ = _compiled(CACHE + ", force_refresh_step_hint: 12}", qwen, request)
    assert _strip(program, 0) == "1111??1111??"
    odd = compile_config(CACHE + ", force_refresh_step_hint: 7}", qwen, request)
    assert _codes(odd) == ["refresh-within-step"]


def test_two_transformers_share_the_steps(wan22: ModelFacts) -> None:
    program, compilation = _compiled(CACHE + "}", wan22, Request(20))
    assert [column.target for column in program.columns] == ["transformer"] * 2 + [
        "transformer_2"
    ] * 2
    first, second = _strip(program, 0), _strip(program, 2)
    handover = len(first.rstrip())
    assert 0 < handover < 20
    assert second[:handover].strip() == ""
    assert first[:handover].startswith("1111?")
    assert second[handover:].startswith("1111?"), "warm-up counts a target's own steps"
    assert compilation.estimate is not None
    assert compilation.estimate.max_computed_steps == 20


def test_masks_count_a_targets_own_steps(wan22: ModelFacts) -> None:
    preset = CACHE + ", steps_computation_mask: fast, steps_computation_policy: static}"
    program, _ = _compiled(preset, wan22, Request(50))
    for c in (0, 2):
        strip = _strip(program, c).strip()
        assert strip.startswith("1")
        assert strip.endswith("1")
        assert "0" in strip
    listed = [1, 1, 0, 1] * 5
    program, _ = _compiled(
        CACHE + f", steps_computation_mask: {listed}, steps_computation_policy: static}}",
        wan22,
        Request(20),
    )
    both = [
        a if a != " " else b for a, b in zip(_strip(program, 0), _strip(program, 2), strict=True)
    ]
    assert [int(letter) for letter in both] == listed


def test_programs_of_several_columns_are_taken_as_they_are(
    qwen: ModelFacts, wan22: ModelFacts
) -> None:
    for model, request in (
        (qwen, Request(8, guidance_scale=4.0, negative_prompt=True)),
        (wan22, Request(12)),
    ):
        program, compilation = _compiled(CACHE + "}", model, request)
        again = compile_program(program, model, request)
        assert again.program == program
        assert again.estimate == compilation.estimate


def test_uncached_targets_run_their_own_steps_only(wan22: ModelFacts) -> None:
    program, compilation = _compiled("", wan22, Request(10))
    reasons = {op.reason for step in program.steps for op in step if op}
    assert reasons == {Reason.NO_CACHE}
    assert compilation.estimate is not None
    assert compilation.estimate.min_computed_steps == 10


@pytest.mark.parametrize(
    ("keys", "steps", "field", "message"),
    [
        (
            "max_warmup_steps: 1",
            2,
            "cache_config",
            "step 1: the only step is computed: there is nothing before it that could be reused",
        ),
        (
            "max_warmup_steps: 2, secondary: {max_warmup_steps: 30}",
            40,
            "cache_config.secondary.max_warmup_steps",
            "steps 13 to 39: all 27 steps are computed: max_warmup_steps 30 leaves none of "
            "27 steps to cache",
        ),
        (
            "max_warmup_steps: 3, force_refresh_step_hint: 6, force_refresh_step_policy: repeat",
            40,
            "cache_config.force_refresh_step_hint",
            "steps 0 to 12: all 13 steps are computed: force_refresh_step_hint forgets the cache "
            "before anything of it is used",
        ),
        (
            "steps_computation_mask: {compute_bins: [3, 1], cache_bins: [8]}",
            20,
            "cache_config.steps_computation_mask",
            "steps 7 to 19: the bins cover 12 of 13 steps, 1 too few",
        ),
        (
            "steps_computation_mask: [1, 1, 0, 0, 0, 0, 0, 0, 1, 1]",
            10,
            "cache_config.steps_computation_mask[4]",
            "the mask caches step 4, before anything is computed that could be reused",
        ),
    ],
)
def test_a_finding_says_which_share_of_the_run_it_is_about(
    keys: str, steps: int, field: str, message: str, wan22: ModelFacts
) -> None:
    compilation = compile_config(f"cache_config: {{{keys}}}", wan22, Request(steps))
    assert (field, message) in [(d.field, d.message) for d in compilation.diagnostics]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_transformer_may_have_one_step_or_none(steps: int, wan22: ModelFacts) -> None:
    preset = "cache_config: {steps_computation_mask: ultra, max_warmup_steps: 0}"
    program, compilation = _compiled(preset, wan22, Request(steps))
    assert [len(_strip(program, c).strip()) for c in (0, 2)] == [1, steps - 1]
    assert "scm-disabled" in _codes(compilation)
