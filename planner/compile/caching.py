"""Columns and their ops from a ``cache_config``."""

from __future__ import annotations

from dataclasses import replace

from planner.compile.mask_choice import resolve_mask
from planner.compile.plan import AdaptiveRule, Branch, CacheType, Calibrator, Column, Op
from planner.compile.rule import CacheRule, bounds, schedule
from planner.config.load import AccelerationConfig
from planner.config.schema import CacheConfig
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts

_SECTION = "cache_config"


def cache_columns(
    config: AccelerationConfig, cache: CacheConfig, model: ModelFacts, steps: int
) -> list[tuple[Column, tuple[Op, ...]]]:
    """One column for every block group, with one op a step. Faults are reported to the config."""
    _check_calibrator(config, cache)
    _check_branches(config, cache)
    _check_blocks(config, cache, model)
    _check_steps(config, cache, steps)
    mask = resolve_mask(config, cache, steps)
    rule = _rule(cache, mask, steps)
    ops = schedule(rule, steps)
    _explain_bounds(config, rule, ops)
    calibrator = Calibrator(
        cache_type=CacheType(
            cache.taylorseer_cache_type if cache.enable_taylorseer else "residual"
        ),
        taylorseer_order=cache.taylorseer_order if cache.enable_taylorseer else None,
        encoder=cache.enable_taylorseer and cache.enable_encoder_taylorseer,
    )
    return [
        (
            Column(
                target=group.target,
                branch=Branch.COND,
                block_lists=group.block_lists,
                fn_compute_blocks=cache.Fn_compute_blocks,
                bn_compute_blocks=cache.Bn_compute_blocks,
                calibrator=calibrator,
            ),
            ops,
        )
        for group in model.groups
    ]


def _rule(cache: CacheConfig, mask: tuple[int, ...] | None, steps: int) -> CacheRule:
    def limit(value: int) -> int | None:
        return None if value < 0 else value

    accumulated = cache.max_accumulated_residual_diff_threshold
    refresh = cache.force_refresh_step_hint
    last = steps if cache.force_refresh_step_policy == "repeat" else (refresh or 0) + 1
    return CacheRule(
        test=AdaptiveRule(
            residual_diff_threshold=cache.residual_diff_threshold,
            max_cached_steps=limit(cache.max_cached_steps),
            max_continuous_cached_steps=limit(cache.max_continuous_cached_steps),
            max_accumulated_residual_diff_threshold=(
                accumulated if accumulated is not None and accumulated > 0 else None
            ),
        ),
        max_warmup_steps=cache.max_warmup_steps,
        warmup_interval=cache.warmup_interval,
        mask=mask,
        static_mask=cache.steps_computation_policy == "static",
        # One forward a step, so the hint, which counts forwards, counts steps.
        refresh_steps=frozenset(range(refresh, min(last, steps), refresh) if refresh else ()),
    )


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
    for key in enabled:
        if key != "enable_taylorseer":
            config.report(
                Severity.ERROR,
                "unsupported-key",
                (_SECTION, key),
                f"{key}: this calibrator is not supported yet",
                "enable_taylorseer: true",
            )


def _check_branches(config: AccelerationConfig, cache: CacheConfig) -> None:
    if cache.enable_separate_cfg:
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


def _check_blocks(config: AccelerationConfig, cache: CacheConfig, model: ModelFacts) -> None:
    fn, bn = cache.Fn_compute_blocks, cache.Bn_compute_blocks
    for group in model.groups:
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


def _explain_bounds(config: AccelerationConfig, rule: CacheRule, ops: tuple[Op, ...]) -> None:
    """Says what a mask or a threshold cannot deliver, and which key is in the way."""
    steps, reached = len(ops), bounds(ops)
    if reached.min_computed == steps:
        config.report(
            Severity.WARNING,
            "never-cached",
            (_SECTION,),
            f"all {steps} steps are computed: {_why_never_cached(rule, steps)}",
            at_key=True,
        )
        return
    if rule.mask is None or rule.static_mask:
        return
    ones = sum(rule.mask)
    path = (_SECTION, "steps_computation_mask")
    if reached.min_computed > ones:
        keys = _limiting_keys(rule, steps, reached.min_computed)
        config.report(
            Severity.WARNING,
            "mask-not-reached",
            path,
            f"the mask computes {ones} of {steps} steps, but {' and '.join(keys)} "
            f"{'allows' if len(keys) == 1 else 'allow'} no fewer than {reached.min_computed}; "
            f"at most {reached.max_computed} are computed",
            "steps_computation_policy: static follows the mask exactly",
        )
    elif reached.max_computed > ones:
        config.report(
            Severity.HINT,
            "mask-is-permission",
            path,
            f"under the dynamic policy the mask permits caching: {reached.min_computed} to "
            f"{reached.max_computed} of {steps} steps are computed",
            "steps_computation_policy: static follows the mask exactly",
        )


def _limiting_keys(rule: CacheRule, steps: int, reached: int) -> list[str]:
    """The keys without which fewer steps could be computed."""
    relaxed = {
        "max_continuous_cached_steps": replace(
            rule, test=replace(rule.test, max_continuous_cached_steps=None)
        ),
        "max_cached_steps": replace(rule, test=replace(rule.test, max_cached_steps=None)),
        "force_refresh_step_hint": replace(rule, refresh_steps=frozenset()),
    }
    limiting = [
        key
        for key, other in relaxed.items()
        if bounds(schedule(other, steps)).min_computed < reached
    ]
    return limiting or ["the limits together"]


def _why_never_cached(rule: CacheRule, steps: int) -> str:
    test = rule.test
    if test.residual_diff_threshold <= 0:
        return f"residual_diff_threshold is {test.residual_diff_threshold:g}"
    if test.max_cached_steps == 0:
        return "max_cached_steps is 0"
    if test.max_continuous_cached_steps == 0:
        return "max_continuous_cached_steps is 0"
    if rule.mask is not None and all(rule.mask):
        return "the mask computes every step"
    return f"max_warmup_steps {rule.max_warmup_steps} leaves none of {steps} steps to cache"
