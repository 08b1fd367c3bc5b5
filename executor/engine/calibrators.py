"""What a cached step takes in place of the blocks it skips: the last value, or a forecast."""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor


class Forecast(Protocol):
    """One stream of one column. ``tick`` once a forward, then ``update`` or ``predict``."""

    def tick(self) -> None: ...

    def update(self, value: Tensor) -> None: ...

    def predict(self) -> Tensor: ...


class Reuse:
    """The last computed value."""

    def __init__(self) -> None:
        self._value: Tensor | None = None

    def tick(self) -> None:
        pass

    def update(self, value: Tensor) -> None:
        self._value = value

    def predict(self) -> Tensor:
        assert self._value is not None, "nothing was computed before"
        return self._value


class TaylorSeer:
    """A Taylor expansion around the last computed value (TaylorSeer, Liu et al. 2025).

    Derivatives are divided differences over the forwards between computed values, in the values'
    own dtype. As in Cache-DiT, no difference is taken before the fourth forward: those of the
    first steps, where the trajectory bends most, forecast badly.
    """

    def __init__(self, order: int) -> None:
        self._order = order
        self._differences: list[Tensor] = []
        self._clock = -1
        self._anchor = -1

    def tick(self) -> None:
        if self._differences:
            self._clock += 1

    def update(self, value: Tensor) -> None:
        gap = self._clock - self._anchor
        differences = [value]
        if self._clock > 1:
            for known in self._differences[: self._order]:
                differences.append((differences[-1] - known) / gap)
        self._differences = differences
        self._anchor = self._clock

    def predict(self) -> Tensor:
        assert self._differences, "nothing was computed before"
        distance = self._clock - self._anchor
        value = self._differences[0]
        for order, difference in enumerate(self._differences[1:], start=1):
            value = value + (1 / math.factorial(order)) * difference * distance**order
        return value
