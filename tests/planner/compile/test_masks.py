"""Steps computation masks; the recorded ones of Cache-DiT are checked by ``tests.conformance``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.compile.cache.masks import has_preset, preset_mask, weave

PRESETS = ["slow", "medium", "fast", "ultra"]


def text(mask: list[int]) -> str:
    return "".join(map(str, mask))


@pytest.mark.parametrize(
    ("preset", "steps", "mask"),
    [
        ("slow", 4, "1101"),
        ("ultra", 6, "111001"),
        ("medium", 8, "11110101"),
        ("fast", 28, "1111110100010000100000100001"),
        ("ultra", 16, "1100000000000001"),
    ],
)
def test_presets_by_example(preset: str, steps: int, mask: str) -> None:
    assert text(preset_mask(preset, steps)) == mask


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compute_the_first_and_the_last_step(preset: str) -> None:
    for steps in [4, 6, *range(8, 300), 1000]:
        mask = preset_mask(preset, steps)
        assert len(mask) == steps
        assert set(mask) == {0, 1}
        assert (mask[0], mask[-1]) == (1, 1)


def test_faster_presets_compute_no_more() -> None:
    for steps in range(8, 300):
        computed = [sum(preset_mask(preset, steps)) for preset in PRESETS]
        assert computed == sorted(computed, reverse=True)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 7, -4])
def test_presets_need_steps(steps: int) -> None:
    assert not has_preset(steps)
    with pytest.raises(ValueError, match="at least 8 steps"):
        preset_mask("fast", steps)


def test_an_unknown_preset_has_no_mask() -> None:
    with pytest.raises(KeyError):
        preset_mask("FAST", 28)


@pytest.mark.parametrize(
    ("compute", "cache", "steps", "mask"),
    [
        ([2, 1], [1], None, "1101"),
        ([1], [], 1, "1"),
        ([], [2], 2, "00"),
        ([1, 1, 1], [2], 5, "10011"),
        ([1], [1, 2], 4, "1000"),
        ([3, 3], [3, 3], 5, "11100"),
        ([1, 0, 1], [1, 0, 1], None, "1010"),
    ],
)
def test_bins_are_woven_in_turn(
    compute: list[int], cache: list[int], steps: int | None, mask: str
) -> None:
    assert text(weave(compute, cache, steps)) == mask


def test_bins_that_are_too_short_say_by_how_many() -> None:
    with pytest.raises(ValueError, match="cover 4 of 10 steps, 6 too few"):
        weave([2, 1], [1], 10)


bins = st.lists(st.integers(0, 20), max_size=6)


@given(bins, bins, st.integers(0, 60))
def test_a_woven_mask_has_an_entry_a_step(compute: list[int], cache: list[int], steps: int) -> None:
    if sum(compute) + sum(cache) < steps:
        with pytest.raises(ValueError, match="too few"):
            weave(compute, cache, steps)
        return
    mask = weave(compute, cache, steps)
    assert len(mask) == steps
    assert mask == weave(compute, cache)[:steps]
    assert sum(mask) <= sum(compute)


def test_a_bin_of_millions_costs_no_more_than_the_steps() -> None:
    assert weave([2**31 - 1], [2**31 - 1], 4) == [1, 1, 1, 1]
