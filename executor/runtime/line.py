"""A connection between rank 0 and another rank, served by threads of its own."""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from multiprocessing.connection import Connection

# What a rank that is alive sends when it has nothing to say, several times a timeout.
ALIVE = b""
MOST_SILENCE_SECONDS = 1.0
FLUSH_SECONDS = 1.0


class LineEnd(Enum):
    """How a line was lost; the value continues "rank 2 ..."."""

    CLOSED = "ended"
    SILENT = "does not answer"


class Line:
    """Messages in both directions; nobody who sends or receives one waits for the other side.

    Nor does the main thread of a process: its side answers while it computes.

    Args:
        timeout: seconds without a message, or with one that is not taken, before the other side
            counts as stopped.
        receive: called with every message in the line's own thread; must not wait.
        lost: called once, in the same way, where the other side goes.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float,
        receive: Callable[[bytes], None],
        lost: Callable[[LineEnd], None],
    ) -> None:
        self._connection = connection
        self._silence = min(MOST_SILENCE_SECONDS, timeout / 4)
        self._receive = receive
        self._lost = lost
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ended = threading.Lock()
        limit_waits(connection, timeout)
        self._writer = threading.Thread(target=self._write, name="line-out", daemon=True)
        self._reader = threading.Thread(target=self._read, name="line-in", daemon=True)

    def start(self) -> None:
        self._writer.start()
        self._reader.start()

    def send(self, message: bytes) -> None:
        """Queues a message, which is not empty."""
        self._outgoing.put(message)

    def close(self) -> None:
        """Sends what is queued and ends the line; that is no loss to this side."""
        self._ended.acquire(blocking=False)
        self._outgoing.put(None)
        self._writer.join(FLUSH_SECONDS)
        # The other side may be gone.
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as handle:
            handle.shutdown(socket.SHUT_RDWR)

    def _write(self) -> None:
        try:
            while (message := self._next()) is not None:
                self._connection.send_bytes(message)
        except OSError as error:
            self._end(error)

    def _next(self) -> bytes | None:
        try:
            return self._outgoing.get(timeout=self._silence)
        except queue.Empty:
            return ALIVE

    def _read(self) -> None:
        try:
            while True:
                message = self._connection.recv_bytes()
                if message != ALIVE:
                    self._receive(message)
        except (OSError, EOFError) as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        if self._ended.acquire(blocking=False):
            silent = isinstance(error, BlockingIOError)
            self._lost(LineEnd.SILENT if silent else LineEnd.CLOSED)


def limit_waits(connection: Connection, seconds: float) -> None:
    """Reads and writes that wait longer raise BlockingIOError; small messages go at once."""
    whole = int(seconds)
    interval = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    with socket.socket(fileno=os.dup(connection.fileno())) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
