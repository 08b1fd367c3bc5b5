"""Who is connected: executors with an open call, and for a short grace after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from planner.dispatch.matching import Offer, Requirement

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Call:
    """One open call of an executor. A newer AcquireLease of the same name supersedes an older."""

    asks_for_work: bool
    superseded: bool = False


@dataclass(slots=True)
class _Presence:
    """``offer`` is what it counts as, ``held`` what it last said to hold, and since when."""

    offer: Offer
    held: Requirement
    held_since: float
    calls: list[Call] = field(default_factory=list)
    left_at: float = 0.0


class Connected(Protocol):
    """Knows the executors that are connected now."""

    def connected(self) -> list[Offer]: ...


class Roster:
    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._present: dict[str, _Presence] = {}

    @contextmanager
    def present(self, offer: Offer, *, asks_for_work: bool) -> Iterator[Call]:
        """Counts the executor as connected for the length of a call and the grace after it."""
        call = Call(asks_for_work)
        presence = self._present.get(offer.executor)
        if presence is None:
            self._prune()
            presence = self._present[offer.executor] = _Presence(
                offer, offer.offered, self._clock()
            )
            log.info("executor_connected", executor=offer.executor, model=offer.offered.model)
        presence.offer = offer
        if asks_for_work:
            for older in presence.calls:
                older.superseded = older.asks_for_work
            if presence.held != offer.offered:
                presence.held, presence.held_since = offer.offered, self._clock()
        presence.calls.append(call)
        try:
            yield call
        finally:
            presence.calls.remove(call)
            presence.left_at = self._clock()

    def expect(self, offer: Offer) -> None:
        """Counts a connected executor as what it is about to become, until it asks for work."""
        self._present[offer.executor].offer = offer

    def held_seconds(self, executor: str) -> float:
        """How long a connected executor has asked for work with what it holds now."""
        return self._clock() - self._present[executor].held_since

    def connected(self) -> list[Offer]:
        self._prune()
        return [presence.offer for presence in self._present.values()]

    def silences(self) -> list[tuple[Offer, float]]:
        """Who is connected, each with the seconds since its last call; 0 while one is open."""
        self._prune()
        now = self._clock()
        return [
            (presence.offer, 0.0 if presence.calls else now - presence.left_at)
            for presence in self._present.values()
        ]

    def is_asking(self, executor: str) -> bool:
        presence = self._present.get(executor)
        return presence is not None and any(
            call.asks_for_work and not call.superseded for call in presence.calls
        )

    def _prune(self) -> None:
        now = self._clock()
        for name, presence in list(self._present.items()):
            if not presence.calls and now - presence.left_at >= self._grace:
                del self._present[name]
                log.info("executor_disconnected", executor=name)
