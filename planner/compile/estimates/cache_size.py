"""How much a column's cache holds at its peak, by following what its ops make the engine store.

Where an ADAPTIVE op leaves open what happens, the larger outcome counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from typing import NamedTuple, Protocol

from planner.compile.plan import AdaptiveRule, Calibrator, Dmd, FoCa, Op, OpKind, TaylorSeer

_COMPLEX = 16
"""Bytes of a number of a fit by dynamic mode decomposition."""

_PREDICTIONS = 2
"""After so many in a row another one holds no more."""


class Stored(NamedTuple):
    """What is stored for one stream: whole tensors, and the modes of a fit."""

    tensors: int = 0
    modes: int = 0

    def bytes(self, elements: int, batch: int, dtype_bytes: int) -> int:
        # Each row has its modes, with growth and amplitude.
        fit = self.modes * (elements + 2 * batch) * _COMPLEX
        return self.tensors * elements * dtype_bytes + fit


class Holding(NamedTuple):
    """What a cache holds after a step.

    ``reference``: whether what the first blocks added to the hidden stream is held for a test;
    ``mean``: whether its mean is, too, which the first test takes.
    """

    reference: bool
    mean: bool
    hidden: Stored
    encoder: Stored


def peak_bytes(
    held: Iterable[Holding], elements: Sequence[int], batch: int, dtype_bytes: int
) -> int:
    """``elements`` of one tensor of each stream on one rank, the hidden stream first, all rows of
    the batch together."""
    hidden, *others = elements
    return max(
        (hidden * holding.reference + holding.mean) * dtype_bytes
        + holding.hidden.bytes(hidden, batch, dtype_bytes)
        + sum(holding.encoder.bytes(count, batch, dtype_bytes) for count in others)
        for holding in held
    )


def holdings(
    ops: Sequence[Op | None], calibrator: Calibrator, *, has_middle: bool = True
) -> frozenset[Holding]:
    """Everything that is held after one step or another of a column that has a cache.

    Without blocks between the first and the last (``has_middle``) nothing is stored of them.
    """
    own = [op for op in ops if op is not None]
    kinds = [op.kind for op in own]
    last_test = _last(kinds, (OpKind.ADAPTIVE,))
    last_cached = _last(kinds, (OpKind.ADAPTIVE, OpKind.CACHED)) if has_middle else -1
    keeps_predictions = isinstance(calibrator.forecast, FoCa | Dmd)
    column = _Column(calibrator)
    found = {column.holding}
    for step, op in enumerate(own):
        if op.refresh:
            column = _Column(calibrator)
        if op.kind is OpKind.ADAPTIVE:
            # Computing adds values, caching adds forecasts: to follow every way, it is enough to
            # see at each test what caching from there on would hold, and then to compute.
            if keeps_predictions:
                found.update(column.while_cached(own[i] for i in range(step, len(own))))
            elif column.may_cache(op.adaptive):
                found.add(column.holding._replace(mean=True))
        # Nothing is stored that no later op could read.
        found.add(column.after(op.kind, stores=step < last_cached, tests=step < last_test))
    return frozenset(found)


class _Column:
    """What a column holds, and the counters that limit its caching."""

    def __init__(self, calibrator: Calibrator) -> None:
        self._hidden = _of(calibrator)
        self._encoder = _of(calibrator if calibrator.encoder else Calibrator())
        self._cached_steps = self._streak = 0
        self.holding = Holding(False, False, Stored(), Stored())

    def after(self, kind: OpKind, *, stores: bool, tests: bool) -> Holding:
        """An ADAPTIVE op is taken to compute."""
        if kind is OpKind.CACHED:
            self._cached_steps += 1
            self._streak += 1
            stores, mean = False, self.holding.mean
        else:
            self._streak, mean = 0, self.holding.mean and not tests
        self.holding = Holding(
            self.holding.reference or tests,
            mean,
            self._hidden.after(kind, stores),
            self._encoder.after(kind, stores),
        )
        return self.holding

    def while_cached(self, ops: Iterable[Op]) -> Iterator[Holding]:
        """What is held while these ops are cached, as long as they can be."""
        column = copy(self)
        column._hidden, column._encoder = copy(self._hidden), copy(self._encoder)
        for op in islice(ops, _PREDICTIONS):
            if op.kind is OpKind.FULL or not column.may_cache(op.adaptive):
                break
            if op.kind is OpKind.ADAPTIVE:
                column.holding = column.holding._replace(mean=True)
            yield column.after(OpKind.CACHED, stores=False, tests=False)

    def may_cache(self, rule: AdaptiveRule | None) -> bool:
        if rule is None:
            return True
        most, longest = rule.max_cached_steps, rule.max_continuous_cached_steps
        return (
            rule.residual_diff_threshold > 0
            and self.holding.reference
            and (most is None or self._cached_steps < most)
            and (longest is None or self._streak < longest)
        )


def _last(kinds: Sequence[OpKind], wanted: tuple[OpKind, ...]) -> int:
    """The last step of one of the kinds, or -1."""
    return max((step for step, kind in enumerate(kinds) if kind in wanted), default=-1)


class _Held(Protocol):
    """What is stored for one stream, step by step."""

    def after(self, kind: OpKind, stores: bool) -> Stored: ...


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

    def after(self, kind: OpKind, stores: bool) -> Stored:
        if self._known:
            self._clock += 1
        if stores:
            self._known = 1 + (min(self._order, self._known) if self._clock > 1 else 0)
        return Stored(self._known)


class _HeldFoCa:
    """Two computed values, and of the two latest values those that are predicted."""

    def __init__(self) -> None:
        self._anchors = 0
        self._predicted: tuple[bool, ...] = ()

    def after(self, kind: OpKind, stores: bool) -> Stored:
        if stores:
            self._anchors = min(self._anchors + 1, 2)
            self._predicted = (*self._predicted[-1:], False)
        if kind is OpKind.CACHED and self._anchors == 2 and len(self._predicted) == 2:
            self._predicted = (self._predicted[-1], True)
        return Stored(self._anchors + sum(self._predicted))


class _HeldDmd:
    """The computed values of the history, their slope, and a fit of at most that many modes."""

    def __init__(self, settings: Dmd) -> None:
        self._settings = settings
        self._times: tuple[int, ...] = ()
        self._clock = -1
        self._modes = 0
        self._slope = False
        self._undecided = False

    def after(self, kind: OpKind, stores: bool) -> Stored:
        if self._times:
            self._clock += 1
        if stores:
            self._slope = len(self._times) >= 2 and self._clock > 1
            self._times = (*self._times, self._clock)[-self._settings.history :]
            self._modes = 0
        if kind is OpKind.CACHED:
            self._fit()
        self._undecided = self._undecided or kind is OpKind.ADAPTIVE
        return Stored(len(self._times) + self._slope, self._modes)

    def _fit(self) -> None:
        # With other outcomes all of the values might be at equal distances.
        window = len(self._times) if self._undecided else self._uniform()
        if window >= 4:
            self._modes = min(self._settings.rank or window - 1, window - 1)

    def _uniform(self) -> int:
        """Values at equal distances up to the newest."""
        gaps = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        count = 0
        while count < len(gaps) and gaps[-1 - count] == gaps[-1]:
            count += 1
        return count + 1
