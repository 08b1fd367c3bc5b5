"""Lengths of time and amounts of data, as options take them."""

from __future__ import annotations

import click
import pytest

from planner.cli.quantities import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("0d", 0)],
)
def test_a_length_of_time_has_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-1s", "1.5h", "7 d", "7D", "d", "1s\n", "٣s"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: 0, or as 90s"):
        duration(text)


@pytest.mark.parametrize(("text", "found"), [("0", 0), ("10", 10), ("2K", 2048), ("1G", 1 << 30)])
def test_an_amount_of_data_may_have_a_unit(text: str, found: int) -> None:
    assert size(text) == found


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5G", "5g", "1 G", "9" * 16])
def test_what_is_no_amount_of_data_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="500M"):
        size(text)
