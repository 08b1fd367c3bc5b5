"""How much a column's cache holds at its peak, by following what its ops make the engine store.

Where an ADAPTIVE op leaves open what happens, the larger outcome counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from planner.compile.plan import Calibrator, Dmd, FoCa, Op, OpKind, TaylorSeer

_COMPLEX = 16
"""Bytes of a number of a fit by dynamic mode decomposition."""


def peak_cache_bytes(
    ops: Sequence[Op | None],
    calibrator: Calibrator,
    elements: Sequence[int],
    dtype_bytes: int,
) -> int:
    """``elements`` of one tensor of each stream on one rank, the hidden stream first."""
    kinds = [(step, op.kind) for step, op in enumerate(ops) if op is not None]
    last_test = max((s for s, kind in kinds if kind is OpKind.ADAPTIVE), default=-1)
    last_cached = max((s for s, kind in kinds if kind is not OpKind.FULL), default=-1)
    held, reference, peak = _held(calibrator, elements), 0, 0
    for step, op in enumerate(ops):
        if op is None:
            continue
        if op.refresh:
            held, reference = _held(calibrator, elements), 0
        for stream in held:
            stream.tick()
            if op.kind is not OpKind.CACHED and step < last_cached:
                stream.update()
            if op.kind is not OpKind.FULL:
                stream.predict(certain=op.kind is OpKind.CACHED)
        if op.kind is not OpKind.CACHED and step < last_test:
            # What the first blocks added, and its mean.
            reference = (elements[0] + 1) * dtype_bytes
        size = reference + sum(
            stream.bytes(count, dtype_bytes) for stream, count in zip(held, elements, strict=True)
        )
        peak = max(peak, size)
    return peak


class _Held(Protocol):
    """What is stored for one stream."""

    def tick(self) -> None: ...

    def update(self) -> None: ...

    def predict(self, *, certain: bool) -> None: ...

    def bytes(self, elements: int, dtype_bytes: int) -> int: ...


def _held(calibrator: Calibrator, elements: Sequence[int]) -> list[_Held]:
    encoder = calibrator if calibrator.encoder else Calibrator()
    return [_of(calibrator if i == 0 else encoder) for i in range(len(elements))]


def _of(calibrator: Calibrator) -> _Held:
    match calibrator.forecast:
        case TaylorSeer(order):
            return _HeldTaylorSeer(order)
        case FoCa():
            return _HeldFoCa()
        case Dmd() as settings:
            return _HeldDmd(settings)
        case None:
            return _HeldTaylorSeer(0)


class _HeldTaylorSeer:
    """The value and its known differences; with order 0 the value that is reused."""

    def __init__(self, order: int) -> None:
        self._order = order
        self._known = 0
        self._clock = -1

    def tick(self) -> None:
        if self._known:
            self._clock += 1

    def update(self) -> None:
        self._known = 1 + (min(self._order, self._known) if self._clock > 1 else 0)

    def predict(self, *, certain: bool) -> None:
        pass

    def bytes(self, elements: int, dtype_bytes: int) -> int:
        return self._known * elements * dtype_bytes


class _HeldFoCa:
    """Two computed values, and of the two latest values those that are predicted."""

    def __init__(self) -> None:
        self._anchors = 0
        self._predicted: tuple[bool, ...] = ()

    def tick(self) -> None:
        pass

    def update(self) -> None:
        self._anchors = min(self._anchors + 1, 2)
        self._predicted = (*self._predicted[-1:], False)

    def predict(self, *, certain: bool) -> None:
        if self._anchors == 2 and len(self._predicted) == 2:
            self._predicted = (self._predicted[-1], True) if certain else (True, True)

    def bytes(self, elements: int, dtype_bytes: int) -> int:
        return (self._anchors + sum(self._predicted)) * elements * dtype_bytes


class _HeldDmd:
    """The computed values of the history, their slope, and a fit of at most that many modes."""

    def __init__(self, settings: Dmd) -> None:
        self._settings = settings
        self._times: list[int] = []
        self._clock = -1
        self._modes = 0
        self._slope = False
        self._open = False

    def tick(self) -> None:
        if self._times:
            self._clock += 1

    def update(self) -> None:
        self._slope = len(self._times) >= 2 and self._clock > 1
        self._times = [*self._times, self._clock][-self._settings.history :]

    def predict(self, *, certain: bool) -> None:
        self._open = self._open or not certain
        window = len(self._times) if self._open else self._uniform()
        if window >= 4:
            modes = min(self._settings.rank or window - 1, window - 1)
            self._modes = max(self._modes, modes) if self._open else modes

    def _uniform(self) -> int:
        """Values at equal distances up to the newest."""
        gaps = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        count = 0
        while count < len(gaps) and gaps[-1 - count] == gaps[-1]:
            count += 1
        return count + 1

    def bytes(self, elements: int, dtype_bytes: int) -> int:
        values = (len(self._times) + self._slope) * elements * dtype_bytes
        return values + self._modes * (elements + 2) * _COMPLEX
