"""A measured curve, and what it says: pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tests.bench.report import Series

FLAT = 0.1
"""An exponent that is no growth."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What something takes (``y``, in a ``unit``) by how much there is (``x``, in ``things``).

    ``things`` reads behind a number, ``thing`` behind "a".
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    things: str
    thing: str
    unit: str = "ms"

    @property
    def exponent(self) -> float:
        """The p of y ~ x^p between the ends."""
        return _slope((self.x[0], self.x[-1]), (self.y[0], self.y[-1]))

    @property
    def last_exponent(self) -> float:
        """The same over the upper half of the points, where a constant share hides less."""
        half = (len(self.x) - 1) // 2
        return _slope((self.x[half], self.x[-1]), (self.y[half], self.y[-1]))

    def series(self, label: str, kind: str = "", *, dashed: bool = False) -> Series:
        return Series(label, self.x, self.y, kind=kind, dashed=dashed)


def _slope(x: tuple[float, float], y: tuple[float, float]) -> float:
    return math.log(y[1] / y[0]) / math.log(x[1] / x[0])


def number(value: float) -> str:
    """Two digits at least, and no more than can be measured."""
    if value == 0 or value >= 99.5:
        return f"{value:,.0f}"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def says(what: str, curve: Curve) -> str:
    """One sentence: the ends, how much more one thing is between them, and how that grows."""
    first, last = curve.y[0], curve.y[-1]
    ends = (
        f"{number(last)} {curve.unit} with {curve.x[-1]:,.0f} {curve.things}, "
        f"{number(first)} with {curve.x[0]:,.0f}"
    )
    if last <= first or max(curve.exponent, curve.last_exponent) < FLAT:
        return f"{what}: {ends}; it does not grow."
    each = (last - first) / (curve.x[-1] - curve.x[0])
    grows = f"like n^{curve.exponent:.2f}"
    if abs(curve.last_exponent - curve.exponent) >= FLAT:
        grows += f" (n^{curve.last_exponent:.2f} at the upper end)"
    return f"{what}: {ends}; {number(each)} {curve.unit} a {curve.thing}, growing {grows}."


def points(least: int, most: int, count: int) -> tuple[int, ...]:
    """So many whole numbers from least to most, about equally far apart as a log scale goes."""
    ratio = (most / least) ** (1 / (count - 1))
    return tuple(sorted({round(least * ratio**i) for i in range(count)}))
