"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from ``first`` to ``most`` seconds, each wait shortened by up to half at random."""

    def __init__(self, *, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """Seconds to wait now."""
        wait = self._next
        self._next = min(self._most, 2 * wait)
        return wait * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._next = self._first
