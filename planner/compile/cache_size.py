"""How much a column's cache holds at its peak, by following what its ops make the engine store.

Where an ADAPTIVE op leaves open what happens, the larger outcome counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from planner.compile.plan import Calibrator, Dmd, FoCa, Op, OpKind, TaylorSeer

_COMPLEX = 16
"""Bytes of a number of a fit by dynamic mode decomposition."""


class Stored(NamedTuple):
    """What is stored for one stream: whole tensors, and the modes of a fit."""

    tensors: int = 0
    modes: int = 0

    def bytes(self, elements: int, dtype_bytes: int) -> int:
        return self.tensors * elements * dtype_bytes + self.modes * (elements + 2) * _COMPLEX


class Holding(NamedTuple):
    """What a cache holds after a step.

    ``reference``: whether what the first blocks added to the hidden stream is held for a test.
    """

    reference: bool
    hidden: Stored
    encoder: Stored


def peak_bytes(held: Iterable[Holding], elements: Sequence[int], dtype_bytes: int) -> int:
    """``elements`` of one tensor of each stream on one rank, the hidden stream first."""
    hidden, *others = elements
    return max(
        # The reference, and its mean.
        (hidden + 1) * dtype_bytes * holding.reference
        + holding.hidden.bytes(hidden, dtype_bytes)
        + sum(holding.encoder.bytes(count, dtype_bytes) for count in others)
        for holding in held
    )


def holdings(ops: Sequence[Op | None], calibrator: Calibrator) -> frozenset[Holding]:
    """Everything that is held after one step or another of a column that has a cache."""
    kinds = [None if op is None else op.kind for op in ops]
    last_test = _last(kinds, (OpKind.ADAPTIVE,))
    last_cached = _last(kinds, (OpKind.ADAPTIVE, OpKind.CACHED))
    encoder_calibrator = calibrator if calibrator.encoder else Calibrator()
    hidden, encoder = _of(calibrator), _of(encoder_calibrator)
    reference = False
    found = {Holding(reference, Stored(), Stored())}
    for step, op in enumerate(ops):
        if op is None:
            continue
        if op.refresh:
            hidden, encoder, reference = _of(calibrator), _of(encoder_calibrator), False
        computes = op.kind is not OpKind.CACHED
        # Nothing is stored that no later op could read.
        reference = reference or (computes and step < last_test)
        stores = computes and step < last_cached
        found.add(Holding(reference, hidden.after(op.kind, stores), encoder.after(op.kind, stores)))
    return frozenset(found)


def _last(kinds: Sequence[OpKind | None], wanted: tuple[OpKind, ...]) -> int:
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
        if kind is not OpKind.FULL and self._anchors == 2 and len(self._predicted) == 2:
            certain = kind is OpKind.CACHED
            self._predicted = (self._predicted[-1], True) if certain else (True, True)
        return Stored(self._anchors + sum(self._predicted))


class _HeldDmd:
    """The computed values of the history, their slope, and a fit of at most that many modes."""

    def __init__(self, settings: Dmd) -> None:
        self._settings = settings
        self._times: list[int] = []
        self._clock = -1
        self._modes = 0
        self._slope = False
        self._open = False

    def after(self, kind: OpKind, stores: bool) -> Stored:
        if self._times:
            self._clock += 1
        if stores:
            self._slope = len(self._times) >= 2 and self._clock > 1
            self._times = [*self._times, self._clock][-self._settings.history :]
        if kind is not OpKind.FULL:
            self._fit(certain=kind is OpKind.CACHED)
        return Stored(len(self._times) + self._slope, self._modes)

    def _fit(self, *, certain: bool) -> None:
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
