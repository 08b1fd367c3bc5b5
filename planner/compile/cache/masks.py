"""Steps computation masks (SCM) of Cache-DiT: runs of computed and cached steps.

1 computes a step, 0 lets it be cached.
"""

from __future__ import annotations

from collections.abc import Sequence

Bins = tuple[list[int], list[int]]

MIN_STEPS = 8
"""Presets are defined from this step count on; below, only for 4 and 6 steps."""

_SMALL: dict[int, Bins] = {4: ([2, 1], [1]), 6: ([3, 1], [2])}
_LARGE_STEPS = 28
# (compute bins, cache bins) by the smallest step count that they are meant for.
_PRESETS: dict[str, dict[int, Bins]] = {
    "slow": {
        8: ([5, 1, 1], [1]),
        9: ([5, 2, 1], [1]),
        10: ([4, 2, 2, 2, 1], [1, 1, 1, 1]),
        16: ([8, 3, 3, 2, 1, 1], [1, 2, 2, 2, 3]),
    },
    "medium": {
        8: ([4, 1, 1], [1, 1]),
        9: ([5, 1, 1], [1, 1]),
        10: ([4, 2, 1, 1, 1], [1, 1, 2, 2]),
        16: ([6, 2, 2, 2, 2, 1], [1, 3, 3, 3, 3]),
    },
    "fast": {
        8: ([3, 1, 1], [1, 2]),
        9: ([4, 1, 1], [1, 2]),
        10: ([3, 1, 1, 1, 1], [1, 2, 2, 3]),
        16: ([6, 1, 1, 1, 1, 1], [1, 3, 4, 5, 4]),
    },
    "ultra": {
        8: ([2, 1, 1], [2, 2]),
        9: ([3, 1, 1], [2, 2]),
        10: ([2, 1, 1, 1, 1], [1, 2, 3, 3]),
        16: ([4, 1, 1, 1, 1], [2, 5, 6, 7]),
    },
}


def has_preset(steps: int) -> bool:
    return steps >= MIN_STEPS or steps in _SMALL


def preset_mask(preset: str, steps: int) -> list[int]:
    """The mask of a named preset; the last step is always computed.

    Raises:
        KeyError: the preset does not exist.
        ValueError: presets are not defined for so few steps.
    """
    tables = _PRESETS[preset]
    if not has_preset(steps):
        raise ValueError(f"masks are defined for 4, 6 and at least {MIN_STEPS} steps, not {steps}")
    if steps in _SMALL:
        compute, cache = _SMALL[steps]
    else:
        compute, cache = tables[max(least for least in tables if least <= steps)]
    compute, cache = list(compute), list(cache)
    if steps > _LARGE_STEPS:
        _grow(compute, cache, steps)
    _shrink(compute, cache, steps)
    mask = weave(compute, cache, steps)
    mask[-1] = 1
    return mask


def weave(
    compute_bins: Sequence[int], cache_bins: Sequence[int], steps: int | None = None
) -> list[int]:
    """Ones of the first compute bin, zeros of the first cache bin, and so on in turn, cut to steps.

    Of bins of unequal number the rest of the longer list follows back to back. A negative bin
    emits nothing and takes its width back from the steps that are counted as covered.

    Raises:
        ValueError: the bins cover fewer steps than there are.
    """
    covered = sum(compute_bins) + sum(cache_bins)
    if steps is None:
        steps = covered
    if covered < steps:
        raise ValueError(f"the bins cover {covered} of {steps} steps, {steps - covered} too few")
    mask: list[int] = []
    position = i = 0
    while position < steps:
        for bins, value in ((compute_bins, 1), (cache_bins, 0)):
            if i < len(bins):
                mask += [value] * min(bins[i], steps)
                position += bins[i]
        i += 1
    return mask[: max(steps, 0)]


def _grow(compute: list[int], cache: list[int], steps: int) -> None:
    """Widens the bins in proportion, pass by pass, until they cover the steps."""
    factor = (steps / _LARGE_STEPS) * 0.5
    pairs = range(min(len(compute), len(cache)))
    compute_by = [max(int(width * factor), 1) for width in compute]
    cache_by = [max(int(width * factor), 1) for width in cache]
    while True:
        for i in pairs:
            for bins, by in ((compute, compute_by), (cache, cache_by)):
                bins[i] += by[i]
                if sum(compute) + sum(cache) >= steps:
                    return
        compute[-1] += 1
        if sum(compute) + sum(cache) >= steps:
            return


def _shrink(compute: list[int], cache: list[int], steps: int) -> None:
    """Takes single steps off the last bins, cache and compute in turn, until they fit."""
    while True:
        for bins in (cache, compute):
            if sum(compute) + sum(cache) <= steps:
                return
            if bins:
                bins[-1] -= 1
                if bins[-1] == 0:
                    bins.pop()
