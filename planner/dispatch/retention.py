"""How long what has ended is kept, and whether there is room for more."""

from __future__ import annotations

import asyncio
import math
import shutil
import time

import structlog

from planner.dispatch.notices import wait
from planner.settings import Limits, Timing
from planner.store.directory import DataDirectory
from planner.store.values import StorageFullError

# Of one piece of work, so that no call waits long behind it.
_GENERATIONS_AT_ONCE = 16
_PAGES_AT_ONCE = 64
_PAUSE_SECONDS = 0.01

log = structlog.get_logger(__name__)


class Retention:
    def __init__(self, data: DataDirectory, timing: Timing, limits: Limits) -> None:
        self._data = data
        self._store, self._files = data.store, data.files
        self._timing = timing
        self._most_used = limits.data_bytes
        self._least_free = limits.free_bytes
        self._used = 0
        self._hurry = asyncio.Event()

    def shortage(self) -> str | None:
        """Why there is no room for new work; running work may use what is held back from that."""
        if self._most_used and self._used >= self._most_used:
            self._hurry.set()
            # What has ended makes room in a moment.
            if not self._store.ended_before(math.inf, 1):
                return f"it holds {self._used} bytes of at most {self._most_used}"
        free = shutil.disk_usage(self._data.path).free
        if free < self._least_free:
            return f"{free} bytes are free, of which {self._least_free} are kept for running work"
        return None

    async def keep(self) -> None:
        """Forgets what is due, piece by piece, until cancelled."""
        piece = self._remove_strays
        while True:
            try:
                more = await piece()
                piece = self._piece
            except StorageFullError as full:
                log.warning("storage_full", error=str(full))
                more = False
            except Exception:
                log.exception("retention_failed")
                more = False
            self._hurry.clear()
            await wait(self._hurry, _PAUSE_SECONDS if more else self._timing.retention_interval)

    async def _piece(self) -> bool:
        """One piece of the work; whether there is more."""
        now = time.time()
        at_once = _GENERATIONS_AT_ONCE
        compacted = self._store.compact(now - self._timing.keep_events, at_once)
        due = []
        if self._timing.retain:
            due = self._store.ended_before(now - self._timing.retain, at_once)
        self._used = self._store.used_bytes()
        if not due and self._most_used and self._used > self._most_used:
            due = self._store.ended_before(math.inf, 1)
        for generation in due:
            # In this order a crash leaves files that nobody knows, never the other way round.
            self._store.forget(generation)
            await asyncio.to_thread(self._files.forget, generation)
            log.info("generation_forgotten", generation=generation)
        given_back = self._store.give_back(_PAGES_AT_ONCE)
        return bool(due) or compacted == at_once or given_back

    async def _remove_strays(self) -> bool:
        """Files that an earlier planner left when it was killed."""
        for generation in await asyncio.to_thread(self._files.generations):
            if self._store.owner(generation) is None:
                await asyncio.to_thread(self._files.forget, generation)
            # There may be many: calls get their turn in between.
            await asyncio.sleep(0)
        return True
