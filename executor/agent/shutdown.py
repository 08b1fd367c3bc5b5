"""SIGTERM and SIGINT: the first asks for a drain, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What telling the planner may take after the drain is over.
FAREWELL_SECONDS = 5.0
# After that a kernel has hung, or the one in flight takes longer than anyone waits.
STUCK_STATUS = 1
JOIN_SECONDS = 1.0


class Shutdown:
    """Listens for signals in a thread of its own, because the main thread may be in a long kernel.

    Until `serving` is called there is nothing to drain and the first signal ends the process.
    """

    def __init__(self, drain_seconds: float) -> None:
        self.requested = threading.Event()
        self._drain_seconds = drain_seconds
        self._expires_at = float("inf")
        self._on_drain: Callable[[], None] | None = None
        self._receiver, self._sender = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def __enter__(self) -> Self:
        self._sender.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._sender.fileno())
        self._handlers = {number: signal.signal(number, _leave_to_thread) for number in SIGNALS}
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_fd)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._sender.close()
        self._thread.join(JOIN_SECONDS)
        self._receiver.close()

    def serving(self, on_drain: Callable[[], None]) -> None:
        """From here on the first signal drains; ``on_drain`` is called then and must not wait."""
        self._on_drain = on_drain

    @property
    def expired(self) -> bool:
        """Whether the drain has taken as long as it may."""
        return time.monotonic() >= self._expires_at

    def limit(self, deadline: float) -> float:
        """A deadline of the monotonic clock, sooner where the process must end sooner."""
        return min(deadline, self._expires_at + FAREWELL_SECONDS)

    def _listen(self) -> None:
        try:
            while received := self._receiver.recv(64):
                for number in received:
                    if number in SIGNALS:
                        self._receive(number)
        except TimeoutError:
            # Only between two forwards can a run be stopped in order.
            os._exit(STUCK_STATUS)

    def _receive(self, number: int) -> None:
        if self.requested.is_set():
            os._exit(128 + number)
        if self._on_drain is None:
            os._exit(0)
        self._expires_at = time.monotonic() + self._drain_seconds
        self._receiver.settimeout(self._drain_seconds + 2 * FAREWELL_SECONDS)
        self.requested.set()
        self._on_drain()


def _leave_to_thread(number: int, frame: FrameType | None) -> None:
    """Python needs a handler to write to the wake-up descriptor; the thread does the rest."""
