"""Where ditplan departs from Cache-DiT on purpose: an early, clear finding, or a meaning.

Each case is one input; ``Finds`` says what the compiler has to say about it, ``Means`` the strip
that it compiles to (F full, c cached, ? adaptive). Most need no more than 8 steps of FLUX.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from planner.compile.compiler import Compilation, compile_config
from planner.compile.plan import OpKind
from planner.compile.request import Request
from planner.diagnostics import Diagnostic, Severity
from planner.models.facts import ModelFacts

ERROR, WARNING, HINT = Severity.ERROR, Severity.WARNING, Severity.HINT


@dataclass(frozen=True)
class Case:
    what: str
    config: str
    severity: Severity
    code: str
    field: str
    says: str = ""
    hint: str = ""
    strip: str = ""
    steps: int | None = 8
    gpus: int | None = 1


def cached(keys: str) -> str:
    return f"cache_config: {{{keys}}}"


def parallel(keys: str) -> str:
    return f"parallelism_config: {{{keys}}}"


MASK = "cache_config.steps_computation_mask"

CASES = [
    Case(
        "unknown section",
        "chache_config: {}",
        ERROR,
        "unknown-key",
        "chache_config",
        hint="did you mean cache_config?",
    ),
    Case(
        "unknown key",
        cached("max_warmup_step: 1"),
        ERROR,
        "unknown-key",
        "cache_config.max_warmup_step",
        hint="did you mean max_warmup_steps?",
    ),
    Case(
        "key that the peer has but offers to no YAML",
        cached("downsample_factor: 2"),
        ERROR,
        "unknown-key",
        "cache_config.downsample_factor",
    ),
    Case(
        "documented misspelling",
        cached("enable_sperate_cfg: false"),
        WARNING,
        "misspelt-key",
        "cache_config.enable_separate_cfg",
        hint="enable_separate_cfg: false",
        strip="FFFFFFFF",
    ),
    Case(
        "short quantization type",
        "quantize_config: {quant_type: float8_blockwise}",
        HINT,
        "quant-type-alias",
        "quantize_config.quant_type",
        hint="quant_type: float8_per_block",
        strip="FFFFFFFF",
    ),
    Case(
        "wrong type",
        cached("max_cached_steps: many"),
        ERROR,
        "invalid-value",
        "cache_config.max_cached_steps",
    ),
    Case(
        "Fn below 1",
        cached("Fn_compute_blocks: 0"),
        ERROR,
        "invalid-value",
        "cache_config.Fn_compute_blocks",
    ),
    Case(
        "Fn above the blocks",
        cached("Fn_compute_blocks: 58"),
        ERROR,
        "too-many-compute-blocks",
        "cache_config.Fn_compute_blocks",
        says="the 57 blocks of transformer.transformer_blocks+single_transformer_blocks",
        hint="together at most 57",
    ),
    Case(
        "Bn below 0",
        cached("Bn_compute_blocks: -1"),
        ERROR,
        "invalid-value",
        "cache_config.Bn_compute_blocks",
    ),
    Case(
        "Fn and Bn together above the blocks",
        cached("Fn_compute_blocks: 30, Bn_compute_blocks: 28"),
        ERROR,
        "too-many-compute-blocks",
        "cache_config.Bn_compute_blocks",
        says="Fn_compute_blocks 30 + Bn_compute_blocks 28 exceed the 57 blocks",
    ),
    Case(
        "warm-up interval below 1",
        cached("warmup_interval: 0"),
        ERROR,
        "invalid-value",
        "cache_config.warmup_interval",
    ),
    Case(
        "unknown policy",
        cached("steps_computation_policy: STATIC"),
        ERROR,
        "invalid-value",
        "cache_config.steps_computation_policy",
        hint="did you mean static?",
    ),
    Case(
        "unknown refresh policy",
        cached("force_refresh_step_policy: always"),
        ERROR,
        "invalid-value",
        "cache_config.force_refresh_step_policy",
    ),
    Case(
        "mask list of another length",
        cached("steps_computation_mask: [1, 0, 1]"),
        ERROR,
        "mask-length",
        MASK,
        says="3 entries, the run 8 steps",
        hint="use a mask of 8 entries, or run 3 steps",
    ),
    Case(
        "mask list of another length, although the file names its step count",
        cached("num_inference_steps: 3, steps_computation_mask: [1, 0, 1]"),
        ERROR,
        "mask-length",
        MASK,
    ),
    Case(
        "mask entry that is neither 0 nor 1",
        cached("steps_computation_mask: [1, 1, 1, 1, 1, 1, 2, 1]"),
        ERROR,
        "invalid-value",
        f"{MASK}[6]",
    ),
    Case(
        "mask whose first step is cached",
        cached("steps_computation_mask: [0, 1, 1, 1, 1, 1, 1, 1]"),
        ERROR,
        "mask-starts-cached",
        f"{MASK}[0]",
        hint="start the mask with 1",
    ),
    Case(
        "bins whose first step is cached",
        cached("steps_computation_mask: {compute_bins: [0, 5], cache_bins: [3]}"),
        ERROR,
        "mask-starts-cached",
        MASK,
    ),
    Case(
        "bins shorter than the steps",
        cached("steps_computation_mask: {compute_bins: [2, 1], cache_bins: [2]}"),
        ERROR,
        "bins-too-short",
        MASK,
        says="cover 5 of 8 steps, 3 too few",
    ),
    Case(
        "bins longer than the steps",
        cached(
            "steps_computation_policy: static, "
            "steps_computation_mask: {compute_bins: [2, 9], cache_bins: [3]}"
        ),
        WARNING,
        "bins-too-long",
        MASK,
        says="cover 14 steps; the last 6 are cut off",
        strip="FFcccFFF",
    ),
    Case(
        "bins whose last step is cached",
        cached(
            "steps_computation_policy: static, "
            "steps_computation_mask: {compute_bins: [6], cache_bins: [2]}"
        ),
        WARNING,
        "last-step-cached",
        MASK,
        hint="end the mask with 1",
        strip="FFFFFFcc",
    ),
    Case(
        "preset by a string that is none",
        cached("steps_computation_mask: none"),
        ERROR,
        "invalid-value",
        MASK,
    ),
    Case(
        "the request names another step count than the file",
        cached(
            "num_inference_steps: 28, steps_computation_mask: fast, "
            "steps_computation_policy: static"
        ),
        WARNING,
        "other-step-count",
        "cache_config.num_inference_steps",
        says="the file says 28 steps, the request 8: the request wins",
        hint="num_inference_steps: 8",
        strip="FFFcFccF",
    ),
    *(
        Case(
            f"preset for {steps} steps",
            cached("steps_computation_mask: fast, max_warmup_steps: 0"),
            WARNING,
            "scm-disabled",
            MASK,
            says=f"with {steps} SCM is off",
            strip="F" + "?" * (steps - 1),
            steps=steps,
        )
        for steps in (2, 3, 5, 7)
    ),
    Case(
        "dynamic mask that a limit keeps from being reached",
        cached("steps_computation_mask: fast, max_continuous_cached_steps: 2"),
        WARNING,
        "mask-not-reached",
        MASK,
        says="11 of 28 steps, but max_continuous_cached_steps allows no fewer than",
        hint="steps_computation_policy: static",
        steps=28,
    ),
    Case(
        "dynamic mask that diffs may keep from being reached",
        cached("steps_computation_mask: fast"),
        HINT,
        "mask-is-permission",
        MASK,
        says="11 to 28 of 28 steps are computed",
        steps=28,
    ),
    Case(
        "warm-up longer than the run",
        cached("max_warmup_steps: 99"),
        WARNING,
        "never-cached",
        "cache_config.max_warmup_steps",
        says="max_warmup_steps 99 leaves none of 8 steps to cache",
        strip="FFFFFFFF",
    ),
    Case(
        "auto that does not divide the ranks",
        parallel("ulysses_size: auto, tp_size: 3"),
        ERROR,
        "sizes-do-not-cover",
        "parallelism_config.ulysses_size",
        says="multiply to 3, which does not divide 8 ranks",
        hint="use a multiple of 3 ranks",
        gpus=8,
    ),
    Case(
        "sizes below the ranks",
        parallel("ulysses_size: 2"),
        ERROR,
        "sizes-do-not-cover",
        "parallelism_config",
        says="is 2, but there are 4 ranks",
        hint="use 2 ranks, or sizes that multiply to 4",
        gpus=4,
    ),
    Case(
        "sizes above the ranks",
        parallel("ulysses_size: 4, ring_size: 2"),
        ERROR,
        "sizes-do-not-cover",
        "parallelism_config",
        says="is 8, but there are 4 ranks",
        gpus=4,
    ),
    Case(
        "ranks without a config for them",
        cached("max_warmup_steps: 1"),
        ERROR,
        "idle-ranks",
        "parallelism_config",
        hint="parallelism_config: {ulysses_size: auto}",
        gpus=2,
    ),
    Case(
        "auto without a world",
        parallel("ulysses_size: auto"),
        ERROR,
        "world-size-unknown",
        "parallelism_config.ulysses_size",
        gpus=None,
    ),
    Case(
        "auto of one rank",
        parallel("ulysses_size: auto"),
        ERROR,
        "no-parallelism",
        "parallelism_config",
    ),
    Case(
        "two autos",
        parallel("ulysses_size: auto, tp_size: auto"),
        ERROR,
        "several-auto-sizes",
        "parallelism_config.tp_size",
        gpus=4,
    ),
    Case(
        "parallelism without sizes",
        parallel("attention_backend: native"),
        ERROR,
        "no-parallelism",
        "parallelism_config",
    ),
    Case(
        "cache type by its documented name",
        cached("cache_type: DBCache, max_warmup_steps: 8"),
        WARNING,
        "never-cached",
        "cache_config.max_warmup_steps",
        strip="FFFFFFFF",
    ),
    Case(
        "DBPrune",
        cached("cache_type: DBPrune"),
        ERROR,
        "unsupported-value",
        "cache_config.cache_type",
        says="'DBPrune' is not supported",
    ),
    Case(
        "a key of DBPrune",
        cached("enable_dynamic_prune_threshold: true"),
        ERROR,
        "unsupported-key",
        "cache_config.enable_dynamic_prune_threshold",
        says="belongs to DBPrune",
    ),
    Case(
        "several calibrators",
        cached("enable_foca: true, enable_taylorseer: true"),
        ERROR,
        "several-calibrators",
        "cache_config.enable_foca",
        says="enable_taylorseer and enable_foca exclude each other",
    ),
    Case(
        "a branch order that cannot reuse diffs",
        cached("cfg_compute_first: true"),
        ERROR,
        "cfg-compute-first",
        "cache_config.cfg_compute_first",
        hint="cfg_diff_compute_separate: false",
    ),
    Case(
        "branches of a request that has one",
        cached("enable_separate_cfg: true"),
        HINT,
        "one-branch",
        "cache_config.enable_separate_cfg",
        strip="FFFFFFFF",
    ),
]


def compiled(case: Case, model: ModelFacts) -> Compilation:
    return compile_config(
        case.config, model, Request(num_inference_steps=case.steps, world_size=case.gpus)
    )


def finding(case: Case, compilation: Compilation) -> Diagnostic:
    (found,) = [d for d in compilation.diagnostics if d.code == case.code][:1] or [None]
    assert found is not None, compilation.diagnostics
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_finding(case: Case, flux: ModelFacts) -> None:
    compilation = compiled(case, flux)
    found = finding(case, compilation)
    assert (found.severity, found.field) == (case.severity, case.field)
    assert case.says in found.message
    assert case.hint in found.hint
    # A place exactly where the text has the key or its section.
    assert (found.line == 1) is (case.field.split(".")[0] in case.config)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_meaning(case: Case, flux: ModelFacts) -> None:
    compilation = compiled(case, flux)
    if case.severity is ERROR:
        assert (compilation.program, compilation.estimate) == (None, None)
        return
    assert compilation.program is not None
    letters = {OpKind.FULL: "F", OpKind.CACHED: "c", OpKind.ADAPTIVE: "?"}
    ops = [op for (op,) in compilation.program.steps if op is not None]
    assert case.strip in ("", "".join(letters[op.kind] for op in ops))


@pytest.mark.parametrize("steps", [4, 6])
def test_presets_of_4_and_6_steps_are_kept(steps: int, flux: ModelFacts) -> None:
    config = cached("steps_computation_mask: ultra, steps_computation_policy: static")
    compilation = compile_config(config, flux, Request(num_inference_steps=steps))
    assert not compilation.diagnostics
    assert compilation.estimate is not None
    assert compilation.estimate.max_computed_steps == {4: 3, 6: 4}[steps]


def test_a_preset_takes_the_step_count_of_the_request(flux: ModelFacts) -> None:
    config = cached("steps_computation_mask: fast, steps_computation_policy: static")
    compilation = compile_config(config, flux, Request(num_inference_steps=50))
    assert not compilation.diagnostics
    assert compilation.estimate is not None
    assert compilation.estimate.max_computed_steps == 20


def test_short_names_of_sizes_mean_the_sizes(flux: ModelFacts) -> None:
    compilation = compile_config(
        parallel("ulysses: 2, ring: 2, tp: 2"), flux, Request(world_size=8)
    )
    assert not compilation.diagnostics
    assert compilation.program is not None
    topology = compilation.program.topology
    assert (topology.ulysses_size, topology.ring_size, topology.tp_size) == (2, 2, 2)


def test_the_encoder_is_forecast_only_on_demand(flux: ModelFacts) -> None:
    for demand in ("", ", enable_encoder_taylorseer: true"):
        config = cached(f"enable_taylorseer: true{demand}")
        program = compile_config(config, flux, Request()).program
        assert program is not None
        calibrator = program.columns[0].calibrator
        assert calibrator is not None
        assert calibrator.encoder is bool(demand)
