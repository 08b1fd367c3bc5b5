"""SIGTERM and SIGINT, received in a thread: the main thread may be in a long kernel."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
JOIN_SECONDS = 1.0


class Signals:
    """While the context lasts, calls ``receive`` with the number of each, in a thread of its own.

    To be entered by the main thread.
    """

    def __init__(self, receive: Callable[[int], None]) -> None:
        self._receive = receive
        self._receiver, self._sender = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def __enter__(self) -> Self:
        self._sender.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._sender.fileno())
        self._handlers = {number: signal.signal(number, _leave_to_thread) for number in SIGNALS}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup_fd)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._sender.close()
        self._thread.join(JOIN_SECONDS)
        self._receiver.close()

    def _listen(self) -> None:
        while received := self._receiver.recv(64):
            for number in received:
                if number in SIGNALS:
                    self._receive(number)


def _leave_to_thread(number: int, frame: FrameType | None) -> None:
    """Python needs a handler to write to the wake-up descriptor; the thread does the rest."""
