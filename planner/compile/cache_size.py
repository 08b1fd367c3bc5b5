"""How much a column's cache holds at its peak, by following what its ops make the engine store.

Where an ADAPTIVE op leaves open what happens, the larger outcome counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import islice
from typing import Protocol

from planner.compile.plan import AdaptiveRule, Calibrator, Dmd, FoCa, Op, OpKind, TaylorSeer

_COMPLEX = 16
"""Bytes of a number of a fit by dynamic mode decomposition."""

_PREDICTIONS = 2
"""After so many in a row another one holds no more."""


def peak_cache_bytes(
    ops: Sequence[Op | None],
    calibrator: Calibrator,
    elements: Sequence[int],
    batch: int,
    dtype_bytes: int,
    *,
    has_middle: bool,
) -> int:
    """``elements`` of one tensor of each stream on one rank, the hidden stream first, all rows of
    the batch together. Without blocks between the first and the last nothing is stored of them."""
    column = _Column(calibrator, elements, batch, dtype_bytes)
    kinds = [(step, op.kind) for step, op in enumerate(ops) if op is not None]
    last_test = max((s for s, kind in kinds if kind is OpKind.ADAPTIVE), default=-1)
    last_cached = max((s for s, kind in kinds if kind is not OpKind.FULL), default=-1)
    keeps_predictions = isinstance(calibrator.forecast, FoCa | Dmd)
    peak = 0
    for step, op in enumerate(ops):
        if op is None:
            continue
        if op.refresh:
            column.refresh()
        if op.adaptive is not None and keeps_predictions:
            # Computing adds values, caching adds forecasts: to follow every way, it is enough to
            # ask at each test what caching from there on would hold, and then to compute.
            coming = (op for i in range(step, len(ops)) if (op := ops[i]) is not None)
            peak = max(peak, column.peak_if_cached(coming))
        column.tick()
        if op.kind is OpKind.CACHED:
            column.predict()
        else:
            column.compute(stores=has_middle and step < last_cached, tests=step < last_test)
        column.undecided |= op.adaptive is not None
        peak = max(peak, column.bytes)
    return peak


class _Column:
    """What a column holds, and the counters that limit its caching."""

    def __init__(
        self, calibrator: Calibrator, elements: Sequence[int], batch: int, dtype_bytes: int
    ) -> None:
        self._calibrator = calibrator
        self._elements = elements
        self._batch = batch
        self._dtype_bytes = dtype_bytes
        self.undecided = False
        """Whether an ADAPTIVE op has been computed that might have been cached."""
        self.refresh()

    def refresh(self) -> None:
        encoder = self._calibrator if self._calibrator.encoder else Calibrator()
        self._held = [
            _of(self._calibrator if i == 0 else encoder) for i in range(len(self._elements))
        ]
        self._reference = 0
        self._cached_steps = self._streak = 0

    def tick(self) -> None:
        for stream in self._held:
            stream.tick()

    def compute(self, *, stores: bool, tests: bool) -> None:
        self._streak = 0
        if stores:
            for stream in self._held:
                stream.update()
        if tests:
            # What the first blocks added, and its mean.
            self._reference = (self._elements[0] + 1) * self._dtype_bytes

    def predict(self) -> None:
        self._cached_steps += 1
        self._streak += 1
        for stream in self._held:
            stream.predict(undecided=self.undecided)

    def peak_if_cached(self, ops: Iterable[Op]) -> int:
        """The most that is held while these ops are cached, as long as they can be."""
        branch = copy(self)
        branch._held = [copy(stream) for stream in self._held]
        peak = 0
        for op in islice(ops, _PREDICTIONS):
            if op.kind is OpKind.FULL or not branch._may_cache(op.adaptive):
                break
            branch.tick()
            branch.predict()
            peak = max(peak, branch.bytes)
        return peak

    def _may_cache(self, rule: AdaptiveRule | None) -> bool:
        if rule is None:
            return True
        most, longest = rule.max_cached_steps, rule.max_continuous_cached_steps
        return (
            rule.residual_diff_threshold > 0
            and self._reference > 0
            and (most is None or self._cached_steps < most)
            and (longest is None or self._streak < longest)
        )

    @property
    def bytes(self) -> int:
        return self._reference + sum(
            stream.bytes(count, self._batch, self._dtype_bytes)
            for stream, count in zip(self._held, self._elements, strict=True)
        )


class _Held(Protocol):
    """What is stored for one stream."""

    def tick(self) -> None: ...

    def update(self) -> None: ...

    def predict(self, *, undecided: bool) -> None: ...

    def bytes(self, elements: int, batch: int, dtype_bytes: int) -> int: ...


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

    def predict(self, *, undecided: bool) -> None:
        pass

    def bytes(self, elements: int, batch: int, dtype_bytes: int) -> int:
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

    def predict(self, *, undecided: bool) -> None:
        if self._anchors == 2 and len(self._predicted) == 2:
            self._predicted = (self._predicted[-1], True)

    def bytes(self, elements: int, batch: int, dtype_bytes: int) -> int:
        return (self._anchors + sum(self._predicted)) * elements * dtype_bytes


class _HeldDmd:
    """The computed values of the history, their slope, and a fit of at most that many modes."""

    def __init__(self, settings: Dmd) -> None:
        self._settings = settings
        self._times: tuple[int, ...] = ()
        self._clock = -1
        self._modes = 0
        self._slope = False

    def tick(self) -> None:
        if self._times:
            self._clock += 1

    def update(self) -> None:
        self._slope = len(self._times) >= 2 and self._clock > 1
        self._times = (*self._times, self._clock)[-self._settings.history :]
        self._modes = 0

    def predict(self, *, undecided: bool) -> None:
        # With other outcomes all of the values might be at equal distances.
        window = len(self._times) if undecided else self._uniform()
        if window >= 4:
            self._modes = min(self._settings.rank or window - 1, window - 1)

    def _uniform(self) -> int:
        """Values at equal distances up to the newest."""
        gaps = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        count = 0
        while count < len(gaps) and gaps[-1 - count] == gaps[-1]:
            count += 1
        return count + 1

    def bytes(self, elements: int, batch: int, dtype_bytes: int) -> int:
        values = (len(self._times) + self._slope) * elements * dtype_bytes
        # Of each row its modes, with growth and amplitude.
        return values + self._modes * (elements + 2 * batch) * _COMPLEX
