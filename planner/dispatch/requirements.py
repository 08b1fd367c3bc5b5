"""What the keys stand for under which a store keeps work."""

from __future__ import annotations

from functools import lru_cache

from planner.dispatch.matching import Requirement
from planner.store.interface import Store

_MAX_KNOWN = 4096


class Requirements:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.of = lru_cache(_MAX_KNOWN)(self._read)

    def _read(self, key: str) -> Requirement:
        """The requirement of work that the store has."""
        needs = self._store.needs(key)
        return Requirement.from_proto(needs.model, needs.program)
