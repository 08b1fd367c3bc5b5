"""Columns and their ops from a ``cache_config``."""

from __future__ import annotations

from planner.compile.cache_checks import check_cache
from planner.compile.cache_limits import explain_bounds
from planner.compile.plan import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    Dmd,
    FoCa,
    Op,
    TaylorSeer,
)
from planner.compile.rule import CacheRule, schedule
from planner.compile.scm import resolve_mask
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import CacheConfig
from planner.models.facts import ModelFacts


def cache_columns(
    config: AccelerationConfig, cache: CacheConfig, model: ModelFacts, steps: int
) -> list[tuple[Column, tuple[Op, ...]]]:
    """One column for every block group, with one op a step. Faults are reported to the config."""
    check_cache(config, cache, model, steps)
    mask = resolve_mask(config, cache, steps)
    rule = _rule(cache, mask, steps)
    ops = schedule(rule, steps)
    explain_bounds(config, rule, ops)
    calibrator = _calibrator(cache)
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


def _calibrator(cache: CacheConfig) -> Calibrator:
    if cache.enable_taylorseer:
        return Calibrator(
            CacheType(cache.taylorseer_cache_type),
            TaylorSeer(cache.taylorseer_order),
            cache.enable_encoder_taylorseer,
        )
    cache_type = CacheType(cache.calibrator_cache_type)
    if cache.enable_foca:
        return Calibrator(cache_type, FoCa(), cache.enable_encoder_foca)
    if cache.enable_dmd:
        forecast = Dmd(cache.dmd_history, cache.dmd_rank, cache.dmd_ridge, cache.dmd_svd_precision)
        encoder = cache.enable_encoder_dmd
        return Calibrator(cache_type, forecast, True if encoder is None else encoder)
    return Calibrator()


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
