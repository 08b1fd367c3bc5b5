"""Wakes those who wait for a key to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Notices:
    """One event per listener. A listener clears its event, looks, then waits: nothing is missed.

    ``count``: how often anything has changed; what was seen at the same count is what is.
    """

    def __init__(self) -> None:
        self.count = 0
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listen(self, *keys: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of the keys changes."""
        event = asyncio.Event()
        for key in keys:
            self._listeners.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            for key in set(keys):
                listeners = self._listeners[key]
                listeners.discard(event)
                if not listeners:
                    del self._listeners[key]

    def notify(self, key: str) -> None:
        self.count += 1
        for event in self._listeners.get(key, ()):
            event.set()

    def notify_all(self) -> None:
        for key in self._listeners:
            self.notify(key)


async def wait(event: asyncio.Event, seconds: float | None) -> None:
    """Until the event is set or the time is over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
