"""What a cached step takes in place of the blocks it skips: the last value, or a forecast.

They follow Cache-DiT's arithmetic to the operation, so that latents agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Protocol

from torch import Tensor


class Forecast(Protocol):
    """One stream of one column. ``tick`` once a forward, then ``update`` or ``predict``.

    ``predict_stores``: a prediction, too, changes what is held.
    """

    predict_stores: ClassVar[bool]

    def tick(self) -> None: ...

    def update(self, value: Tensor) -> None: ...

    def predict(self) -> Tensor: ...

    def held(self) -> Iterator[Tensor]: ...


class Clock:
    """Counts forwards from the first computed value on, and back to the last one.

    As in Cache-DiT it stands still until there is a value.
    """

    def __init__(self) -> None:
        self.now = -1
        self._anchor = -1
        self._runs = False

    @property
    def distance(self) -> int:
        """Forwards since the last computed value."""
        return self.now - self._anchor

    def tick(self) -> None:
        if self._runs:
            self.now += 1

    def anchor(self) -> None:
        """A value was computed now."""
        self._anchor = self.now
        self._runs = True


class Reuse:
    """The last computed value."""

    predict_stores: ClassVar[bool] = False

    def __init__(self) -> None:
        self._value: Tensor | None = None

    def tick(self) -> None:
        pass

    def update(self, value: Tensor) -> None:
        self._value = value

    def predict(self) -> Tensor:
        assert self._value is not None, "nothing was computed before"
        return self._value

    def held(self) -> Iterator[Tensor]:
        if self._value is not None:
            yield self._value


class TaylorSeer:
    """A Taylor expansion around the last computed value (TaylorSeer, Liu et al. 2025).

    Derivatives are divided differences over the forwards between computed values, in the values'
    own dtype. As in Cache-DiT, no difference is taken before the fourth forward: those of the
    first steps, where the trajectory bends most, forecast badly.
    """

    predict_stores: ClassVar[bool] = False

    def __init__(self, order: int) -> None:
        self._order = order
        self._differences: list[Tensor] = []
        self._clock = Clock()

    def tick(self) -> None:
        self._clock.tick()

    def update(self, value: Tensor) -> None:
        gap = self._clock.distance
        differences = [value]
        if self._clock.now > 1:
            for known in self._differences[: self._order]:
                differences.append((differences[-1] - known).div_(gap))
        self._differences = differences
        self._clock.anchor()

    def predict(self) -> Tensor:
        assert self._differences, "nothing was computed before"
        distance = self._clock.distance
        value = self._differences[0]
        for order, difference in enumerate(self._differences[1:], start=1):
            # Two factors, one rounded after the other; the first order's factorial is 1.
            term = difference * (distance if order == 1 else 1 / math.factorial(order))
            if order > 1:
                term.mul_(distance**order)
            value = term.add_(value)
        return value

    def held(self) -> Iterator[Tensor]:
        yield from self._differences


class FoCa:
    """A forecast that a correction by the latest values, predicted ones included, tempers (FoCa).

    As Cache-DiT computes it: differences are not divided by the forwards between them.
    """

    predict_stores: ClassVar[bool] = True

    def __init__(self) -> None:
        # The two latest computed values, and the two latest ones of either kind.
        self._anchors: tuple[Tensor, ...] = ()
        self._latest: tuple[Tensor, ...] = ()
        self._clock = Clock()

    def tick(self) -> None:
        self._clock.tick()

    def update(self, value: Tensor) -> None:
        self._anchors = (*self._anchors[-1:], value)
        self._latest = (*self._latest[-1:], value)
        self._clock.anchor()

    def predict(self) -> Tensor:
        assert self._anchors, "nothing was computed before"
        value = self._anchors[-1]
        if len(self._anchors) < 2 or len(self._latest) < 2:
            return value
        distance = self._clock.distance
        slope = (value - self._anchors[0]) + (self._latest[-1] - self._latest[0])
        if distance <= 3:
            predicted = value + (distance / 2) * slope
        else:
            # Farther away the forecast fades into the last computed value.
            weight = 3 / distance
            predicted = weight * (value + 1.5 * slope) + (1 - weight) * value
        self._latest = (self._latest[-1], predicted)
        return predicted

    def held(self) -> Iterator[Tensor]:
        yield from self._anchors
        yield from self._latest
