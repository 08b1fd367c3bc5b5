"""What is said of a curve is what was measured."""

from __future__ import annotations

import pytest

from tests.bench.growth.curve import Curve, number, points, says


def _curve(*y: float, things: str = "steps", thing: str = "step") -> Curve:
    return Curve((1, 10, 100, 1000)[: len(y)], y, things, thing)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_power_is_found(power: float) -> None:
    curve = _curve(*(3 * x**power for x in (1, 10, 100, 1000)))
    assert curve.exponent == pytest.approx(power)
    assert curve.last_exponent == pytest.approx(power)


def test_what_a_constant_share_hides_shows_at_the_upper_end() -> None:
    assert says("Compiling", _curve(101, 110, 200, 1100)) == (
        "Compiling: 1,100 ms with 1,000 steps, 101 with 1; 1.0 ms a step, "
        "growing like n^0.35 (n^0.50 at the upper end)."
    )


def test_growth_in_proportion_is_said_once() -> None:
    text = says("Compiling", _curve(0.02, 0.2, 2, 20))
    assert text == (
        "Compiling: 20 ms with 1,000 steps, 0.020 with 1; 0.020 ms a step, growing like n^1.00."
    )


@pytest.mark.parametrize("y", [(5, 5.2, 4.9, 5.1), (9, 7, 6, 5), (9, 2, 4, 8)])
def test_what_stays_or_falls_does_not_grow(y: tuple[float, ...]) -> None:
    assert says("A call", _curve(*y)).endswith("; it does not grow.")


def test_two_points_are_a_curve() -> None:
    curve = _curve(1, 10)
    assert curve.exponent == curve.last_exponent == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00034, "0.00034"),
        (1.26, "1.3"),
        (12.4, "12"),
        (99.7, "100"),
        (20_500, "20,500"),
    ],
)
def test_numbers_have_two_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_points_have_their_ends_and_rise_evenly() -> None:
    assert points(8, 1000, 8) == (8, 16, 32, 63, 126, 252, 502, 1000)
    assert points(1, 10_000, 5) == (1, 10, 100, 1000, 10_000)


def test_points_that_fall_together_are_one() -> None:
    assert points(1, 3, 9) == (1, 2, 3)
