"""Columns and their ops from a ``cache_config``."""

from __future__ import annotations

from planner.compile.cache.checks import check_cache
from planner.compile.cache.limits import explain_bounds
from planner.compile.cache.scm import resolve_mask, share_of
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
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import CacheConfig
from planner.models.facts import ModelFacts


def cache_columns(
    config: AccelerationConfig,
    cache: CacheConfig,
    model: ModelFacts,
    steps: int,
    branches: tuple[Branch, ...],
) -> list[tuple[Column, tuple[Op | None, ...]]]:
    """One column for every forward of every block group, with one op a step.

    A target that has only some of the steps follows the rule by itself: warm-up, mask and limits
    count its own steps. Faults are reported to the config.
    """
    check_cache(config, cache, model, steps, branches)
    if cache.cfg_compute_first:
        branches = branches[::-1]
    columns = []
    for target in model.architecture.targets:
        own = model.steps_of(target.name, steps)
        source = seen_by(config, model, target.name)
        cache = source.cache or cache
        calibrator = _calibrator(cache)
        ops = _target_ops(source, cache, own, steps, len(branches))
        columns += [
            (
                Column(
                    target=target.name,
                    branch=branch,
                    block_lists=group.block_lists,
                    fn_compute_blocks=cache.Fn_compute_blocks,
                    bn_compute_blocks=cache.Bn_compute_blocks,
                    calibrator=calibrator,
                    reuses_cond_diff=(
                        branch is Branch.UNCOND
                        and not cache.cfg_diff_compute_separate
                        and not cache.cfg_compute_first
                    ),
                ),
                ops,
            )
            for branch in branches
            for group in model.groups
            if group.target == target.name
        ]
    return columns


def seen_by(config: AccelerationConfig, model: ModelFacts, target: str) -> AccelerationConfig:
    """The config as a target has it."""
    first = model.architecture.targets[0].name
    return config if target == first else config.second()


def _target_ops(
    config: AccelerationConfig, cache: CacheConfig, own: range, steps: int, forwards: int
) -> tuple[Op | None, ...]:
    """The ops of a target's own steps, None in the steps that it does not have."""
    if not own:
        return (None,) * steps
    rule = target_rule(config, cache, own, steps, forwards)
    ops, reached = schedule(rule, len(own))
    explain_bounds(config, rule, len(own), reached, share_of(own, steps))
    return (None,) * own.start + ops + (None,) * (steps - own.stop)


def target_rule(
    config: AccelerationConfig, cache: CacheConfig, own: range, steps: int, forwards: int
) -> CacheRule:
    """The rule that a target follows over its own steps of a run."""
    return _rule(cache, resolve_mask(config, cache, own, steps), len(own), forwards)


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


def _rule(cache: CacheConfig, mask: tuple[int, ...] | None, steps: int, forwards: int) -> CacheRule:
    def limit(value: int) -> int | None:
        return None if value < 0 else value

    accumulated = cache.max_accumulated_residual_diff_threshold
    # The hint counts forwards.
    refresh = cache.force_refresh_step_hint and cache.force_refresh_step_hint // forwards
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
        refresh_steps=frozenset(range(refresh, min(last, steps), refresh) if refresh else ()),
    )
