"""``scm_masks.json``: steps computation masks by preset and by custom bins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from planner.compile.cache.masks import preset_mask, weave
from tests.conformance.verdict import MismatchError, expect

Case = tuple[str, Callable[[], None]]


def cases(recorded: dict[str, Any]) -> Iterator[Case]:
    for preset, by_steps in recorded.get("presets", {}).items():
        for steps, result in by_steps.items():
            yield (
                f"{preset} {steps}",
                partial(_check, partial(preset_mask, preset, int(steps)), result),
            )
    for case in recorded.get("custom", ()):
        bins = partial(weave, case["compute_bins"], case["cache_bins"], case["total_steps"])
        yield (
            f"bins {case['compute_bins']}/{case['cache_bins']} {case['total_steps']}",
            partial(_check, bins, case["result"]),
        )
    for case in recorded.get("calls", ()):
        yield case["desc"], partial(_check, partial(_call, **case["kwargs"]), case["result"])


def _call(
    compute_bins: list[int] | None = None,
    cache_bins: list[int] | None = None,
    total_steps: int | None = None,
    mask_policy: str = "medium",
) -> list[int]:
    """The peer's one function for all: bins if both are given, else a preset."""
    if compute_bins is not None and cache_bins is not None:
        return weave(compute_bins, cache_bins, total_steps)
    if total_steps is None:
        raise ValueError("a preset needs a step count")
    return preset_mask(mask_policy, total_steps)


def _check(make: Callable[[], list[int]], result: dict[str, Any]) -> None:
    try:
        mask = "".join(map(str, make()))
    except (KeyError, TypeError, ValueError) as error:
        if "mask" in result:
            raise MismatchError(f"refused: {error}") from error
        return
    expect("mask", mask, result.get("mask", f"refused with {result.get('type')}"))
