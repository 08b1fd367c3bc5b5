"""The steps computation mask (SCM) of a run: from a preset, a list or bins to one entry a step."""

from __future__ import annotations

from planner.compile.masks import has_preset, preset_mask, weave
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import CacheConfig, MaskBins
from planner.diagnostics import Severity

_PATH = ("cache_config", "steps_computation_mask")


def resolve_mask(
    config: AccelerationConfig, cache: CacheConfig, steps: int
) -> tuple[int, ...] | None:
    """The mask, or None where there is none or it cannot be used (which is reported)."""
    choice = cache.steps_computation_mask
    if choice is None:
        return None
    if isinstance(choice, str):
        if not has_preset(steps):
            config.report(
                Severity.WARNING,
                "scm-disabled",
                _PATH,
                f"masks are defined for 4, 6 and at least 8 steps; with {steps} SCM is off",
            )
            return None
        return tuple(preset_mask(choice, steps))
    mask = _woven(config, choice, steps) if isinstance(choice, MaskBins) else list(choice)
    if mask is None:
        return None
    if len(mask) != steps:
        config.report(
            Severity.ERROR,
            "mask-length",
            _PATH,
            f"the mask has {len(mask)} entries, the run {steps} steps",
            f"use a mask of {steps} entries, or run {len(mask)} steps",
        )
        return None
    if mask[0] == 0:
        config.report(
            Severity.ERROR,
            "mask-starts-cached",
            _PATH,
            "the mask caches step 0, before anything is computed that could be reused",
            "start the mask with 1",
        )
        return None
    if mask[-1] == 0:
        config.report(
            Severity.WARNING,
            "last-step-cached",
            _PATH,
            f"the mask caches the last step, {steps - 1}, whose error nothing corrects",
            "end the mask with 1",
        )
    return tuple(mask)


def _woven(config: AccelerationConfig, bins: MaskBins, steps: int) -> list[int] | None:
    try:
        mask = weave(bins.compute_bins, bins.cache_bins, steps)
    except ValueError as short:
        config.report(Severity.ERROR, "bins-too-short", _PATH, str(short), "widen or add bins")
        return None
    covered = sum(bins.compute_bins) + sum(bins.cache_bins)
    if covered > steps:
        config.report(
            Severity.WARNING,
            "bins-too-long",
            _PATH,
            f"the bins cover {covered} steps; the last {covered - steps} are cut off",
        )
    return mask
