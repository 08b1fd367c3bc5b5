"""Keys of a ``cache_config`` that are given but that nothing of a run asks for."""

from __future__ import annotations

from collections.abc import Iterator

from planner.config.acceleration import AccelerationConfig
from planner.config.schema import CacheConfig, TargetCacheConfig
from planner.diagnostics import Severity

_SECTION = "cache_config"
_PARTS = {
    "enable_taylorseer": (
        "taylorseer_order",
        "taylorseer_cache_type",
        "enable_encoder_taylorseer",
    ),
    "enable_dmd": (
        "dmd_history",
        "dmd_rank",
        "dmd_ridge",
        "dmd_svd_precision",
        "enable_encoder_dmd",
    ),
    "enable_foca": ("enable_encoder_foca",),
}


def note_effects(config: AccelerationConfig, targets: int, forwards: int, steps: int) -> None:
    """Hints at keys that differ from their default and change nothing."""
    first, second = config.cache, config.second().cache
    assert first is not None
    assert second is not None
    idle = [dict(_idle(cache, forwards, steps)) for cache in (first, second)[:targets]]
    for key in idle[0].keys() & idle[-1].keys():
        _note(config, key, idle[0][key])
    of_second = first.secondary.model_fields_set if first.secondary and targets > 1 else set()
    for key in idle[-1].keys() & of_second:
        _note(config.second(), key, idle[-1][key])


def _note(config: AccelerationConfig, key: str, why: str) -> None:
    message = f"{key} has no effect {why}"
    config.report(Severity.HINT, "without-effect", (_SECTION, key), message, at_key=True)


def _idle(cache: CacheConfig, forwards: int, steps: int) -> Iterator[tuple[str, str]]:
    def given(key: str) -> bool:
        default = TargetCacheConfig.model_fields | CacheConfig.model_fields
        return key in cache.model_fields_set and getattr(cache, key) != default[key].default

    for enabling, keys in _PARTS.items():
        if not getattr(cache, enabling):
            yield from ((key, f"without {enabling}: true") for key in keys if given(key))
    if given("calibrator_cache_type") and not (cache.enable_dmd or cache.enable_foca):
        yield "calibrator_cache_type", "without enable_dmd: true or enable_foca: true"
    if given("steps_computation_policy") and cache.steps_computation_mask is None:
        yield "steps_computation_policy", "without a steps_computation_mask"
    if given("force_refresh_step_policy") and cache.force_refresh_step_hint is None:
        yield "force_refresh_step_policy", "without a force_refresh_step_hint"
    hint = cache.force_refresh_step_hint
    if hint is not None and hint >= forwards * steps:
        yield "force_refresh_step_hint", f"in a run of {forwards * steps} forwards"
    if given("cfg_diff_compute_separate") and forwards == 1:
        yield "cfg_diff_compute_separate", "with one forward a step"
    accumulated = cache.max_accumulated_residual_diff_threshold
    if accumulated is not None and accumulated <= 0:
        yield "max_accumulated_residual_diff_threshold", "unless it is above 0"
