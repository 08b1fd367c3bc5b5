"""The end of an executor: a signal asks for a drain, a second one ends the process at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Self

from executor.runtime.signals import Signals

# What telling the planner may take after the drain is over.
FAREWELL_SECONDS = 5.0
# After that a kernel has hung, or the one in flight takes longer than anyone waits.
STUCK_STATUS = 1


class Shutdown:
    """Drains on the first SIGTERM or SIGINT, or on `ask`, whichever comes first.

    Until `serving` is called there is nothing to drain, and either ends the process.
    """

    def __init__(self, drain_seconds: float) -> None:
        self.requested = threading.Event()
        self._drain_seconds = drain_seconds
        self._expires_at = float("inf")
        self._on_drain: Callable[[], None] | None = None
        self._signals = Signals(self._receive)
        self.is_signalled = False
        self._lock = threading.Lock()
        # Only between two forwards can a run be stopped in order.
        self._stuck = threading.Timer(
            drain_seconds + 2 * FAREWELL_SECONDS, os._exit, (STUCK_STATUS,)
        )
        self._stuck.daemon = True

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.__exit__()
        self._stuck.cancel()

    def serving(self, on_drain: Callable[[], None]) -> None:
        """From here on it drains; ``on_drain`` is called then and must not wait."""
        self._on_drain = on_drain

    def ask(self) -> None:
        """Drains, as on a signal; to be called from any thread, and as often as one likes."""
        with self._lock:
            if self.requested.is_set():
                return
            if self._on_drain is None:
                os._exit(0)
            self._expires_at = time.monotonic() + self._drain_seconds
            self.requested.set()
        self._stuck.start()
        self._on_drain()

    @property
    def expired(self) -> bool:
        """Whether the drain has taken as long as it may."""
        return time.monotonic() >= self._expires_at

    def limit(self, deadline: float) -> float:
        """A deadline of the monotonic clock, sooner where the process must end sooner."""
        return min(deadline, self._expires_at + FAREWELL_SECONDS)

    def _receive(self, number: int) -> None:
        # One that comes on top of what was asked for is still the first.
        if self.is_signalled:
            os._exit(128 + number)
        self.is_signalled = True
        self.ask()
