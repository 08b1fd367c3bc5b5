"""The steps computation mask (SCM) of a run: from a preset, a list or bins to one entry a step."""

from __future__ import annotations

from planner.compile.cache.masks import has_preset, preset_mask, weave
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import CacheConfig, MaskBins
from planner.diagnostics import Severity

_PATH = ("cache_config", "steps_computation_mask")


def share_of(own: range, run_steps: int) -> str:
    """How a finding about some of a run's steps begins; empty for all of them."""
    if len(own) == run_steps:
        return ""
    return f"step {own.start}: " if len(own) == 1 else f"steps {own.start} to {own.stop - 1}: "


def resolve_mask(
    config: AccelerationConfig, cache: CacheConfig, own: range, run_steps: int
) -> tuple[int, ...] | None:
    """The mask of a target's own steps, or None where there is none that can be used.

    Presets and bins are laid out over the own steps; a list is for the whole run, of which the
    target gets its part. Faults are reported to the config.
    """
    choice = cache.steps_computation_mask
    if choice is None:
        return None
    steps, share = len(own), share_of(own, run_steps)
    if isinstance(choice, str):
        if not has_preset(steps):
            config.report(
                Severity.WARNING,
                "scm-disabled",
                _PATH,
                f"{share}masks are defined for 4, 6 and at least 8 steps; with {steps} SCM is off",
            )
            return None
        return tuple(preset_mask(choice, steps))
    mask = (
        _woven(config, choice, steps, share)
        if isinstance(choice, MaskBins)
        else _listed(config, choice, own, run_steps)
    )
    if mask is None:
        return None
    if mask[0] == 0:
        place = (*_PATH, own.start) if isinstance(choice, list) else _PATH
        config.report(
            Severity.ERROR,
            "mask-starts-cached",
            place,
            f"the mask caches step {own.start}, before anything is computed that could be reused",
            "start the mask with 1" if own.start == 0 else f"make it 1 in step {own.start}",
        )
        return None
    if mask[-1] == 0 and own.stop == run_steps:
        config.report(
            Severity.WARNING,
            "last-step-cached",
            _PATH,
            f"the mask caches the last step, {own.stop - 1}, whose error nothing corrects",
            "end the mask with 1",
        )
    return tuple(mask)


def _woven(config: AccelerationConfig, bins: MaskBins, steps: int, share: str) -> list[int] | None:
    try:
        mask = weave(bins.compute_bins, bins.cache_bins, steps)
    except ValueError as short:
        config.report(
            Severity.ERROR, "bins-too-short", _PATH, f"{share}{short}", "widen or add bins"
        )
        return None
    covered = sum(bins.compute_bins) + sum(bins.cache_bins)
    if covered > steps:
        config.report(
            Severity.WARNING,
            "bins-too-long",
            _PATH,
            f"{share}the bins cover {covered} steps; the last {covered - steps} are cut off",
        )
    return mask


def _listed(
    config: AccelerationConfig, mask: list[int], own: range, run_steps: int
) -> list[int] | None:
    if len(mask) == run_steps:
        return mask[own.start : own.stop]
    config.report(
        Severity.ERROR,
        "mask-length",
        _PATH,
        f"the mask has {len(mask)} entries, the run {run_steps} steps",
        f"use a mask of {run_steps} entries, or run {len(mask)} steps",
    )
    return None
