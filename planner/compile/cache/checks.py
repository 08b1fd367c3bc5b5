"""What in a ``cache_config`` cannot be run, or not as it is written."""

from __future__ import annotations

from planner.compile.cache.effects import note_effects
from planner.compile.plan import Branch
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import CacheConfig
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts

_SECTION = "cache_config"


def check_cache(
    config: AccelerationConfig,
    cache: CacheConfig,
    model: ModelFacts,
    steps: int,
    branches: tuple[Branch, ...],
) -> None:
    """Reports every fault that one look at the section, the model and the step count finds."""
    _check_branches(config, cache, len(branches))
    _check_steps(config, cache, steps)
    note_effects(config, len(model.architecture.targets), len(branches), steps)
    if cache.secondary is not None and len(model.architecture.targets) == 1:
        config.report(
            Severity.WARNING,
            "no-second-transformer",
            (_SECTION, "secondary"),
            "this model has one transformer: what is for a second one has no effect",
            at_key=True,
        )
    for target in model.architecture.targets:
        source = config if target is model.architecture.targets[0] else config.second()
        own = source.cache or cache
        _check_calibrator(source, own)
        _check_blocks(source, own, model, target.name)


def _check_calibrator(config: AccelerationConfig, cache: CacheConfig) -> None:
    enabled = [
        key for key in ("enable_taylorseer", "enable_dmd", "enable_foca") if getattr(cache, key)
    ]
    for key in enabled[1:]:
        config.report(
            Severity.ERROR,
            "several-calibrators",
            (_SECTION, key),
            f"{enabled[0]} and {key} exclude each other",
            f"{key}: false",
        )


def _check_branches(config: AccelerationConfig, cache: CacheConfig, forwards: int) -> None:
    if cache.enable_separate_cfg is False and forwards > 1:
        config.report(
            Severity.WARNING,
            "two-branches",
            (_SECTION, "enable_separate_cfg"),
            "this request runs two forwards a step; their caches are kept apart all the same",
            "enable_separate_cfg: true",
        )
    hint = cache.force_refresh_step_hint
    if hint is not None and hint % forwards:
        config.report(
            Severity.ERROR,
            "refresh-within-step",
            (_SECTION, "force_refresh_step_hint"),
            f"the hint counts forwards, of which a step has {forwards}: {hint} is within a step",
            f"force_refresh_step_hint: {hint + 1}",
        )
    if cache.enable_separate_cfg and forwards == 1:
        config.report(
            Severity.HINT,
            "one-branch",
            (_SECTION, "enable_separate_cfg"),
            "this request runs one forward a step, so there are no branches to keep apart",
        )
    if cache.cfg_compute_first and cache.cfg_diff_compute_separate:
        config.report(
            Severity.ERROR,
            "cfg-compute-first",
            (_SECTION, "cfg_compute_first"),
            "cfg_compute_first: true needs cfg_diff_compute_separate: false",
            "cfg_diff_compute_separate: false",
        )


def _check_blocks(
    config: AccelerationConfig, cache: CacheConfig, model: ModelFacts, target: str
) -> None:
    fn, bn = cache.Fn_compute_blocks, cache.Bn_compute_blocks
    for group in model.groups:
        if group.target != target:
            continue
        blocks = model.architecture.target(group.target).num_blocks(group.block_lists)
        if fn + bn <= blocks:
            continue
        key = "Fn_compute_blocks" if fn > blocks or not bn else "Bn_compute_blocks"
        config.report(
            Severity.ERROR,
            "too-many-compute-blocks",
            (_SECTION, key),
            f"Fn_compute_blocks {fn} + Bn_compute_blocks {bn} exceed the {blocks} blocks of "
            f"{group.target}.{'+'.join(group.block_lists)}",
            f"together at most {blocks}",
        )


def _check_steps(config: AccelerationConfig, cache: CacheConfig, steps: int) -> None:
    written = cache.num_inference_steps
    if written is not None and written != steps:
        config.report(
            Severity.WARNING,
            "other-step-count",
            (_SECTION, "num_inference_steps"),
            f"the file says {written} steps, the request {steps}: the request wins",
            f"num_inference_steps: {steps}",
        )
