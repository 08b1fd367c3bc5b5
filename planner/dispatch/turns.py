"""Which of the queued work an executor takes next: pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from planner.dispatch.differences import could_reload
from planner.dispatch.matching import Offer, Requirement
from planner.store.values import Waiting


def next_work(
    offer: Offer,
    others: Collection[Offer],
    waiting: Sequence[Waiting],
    requirement_of: Callable[[str], Requirement],
    *,
    patience: float,
    held_seconds: float,
) -> Waiting | None:
    """The next work that meets what the executor holds; without any, what it would reload for.

    ``others`` are the other connected executors, busy or not: work that one of them could do as it
    is waits for that one. Once work to reload for has waited for ``patience`` seconds, and the
    executor has held what it holds for as long, the turn alone decides: the one bound keeps a
    placement from being forgotten, the other keeps an executor from doing little but reload where
    the queues of several placements are long.
    """
    own = [each for each in waiting if each.key in offer.keys]
    elsewhere = [
        each
        for each in waiting
        if each.key not in offer.keys
        and not any(each.key in other.keys for other in others)
        and could_reload(requirement_of(each.key), offer)
    ]
    overdue = [each for each in elsewhere if each.seconds >= patience <= held_seconds]
    return _next([*own, *overdue] or elsewhere)


def _next(waiting: Sequence[Waiting]) -> Waiting | None:
    return min(waiting, key=lambda each: (each.turn, each.number), default=None)
