"""A line notices that its other side has gone, in whichever way, and never holds up a sender."""

from __future__ import annotations

import queue
import socket
import time
from multiprocessing.connection import Connection

import pytest

from executor.runtime.line import Line, LineEnd

TIMEOUT = 0.3
WAIT = 10.0
# More than sockets buffer.
LARGE = 1 << 24


class Side:
    """One end with what it received and how it ended."""

    def __init__(self, connection: Connection, timeout: float = TIMEOUT) -> None:
        self.received: queue.Queue[bytes] = queue.Queue()
        self.ends: queue.Queue[LineEnd] = queue.Queue()
        self.line = Line(connection, timeout=timeout, receive=self.received.put, lost=self.ends.put)
        self.line.start()


@pytest.fixture
def connections() -> tuple[Connection, Connection]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialled = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    return Connection(dialled.detach()), Connection(accepted.detach())


def test_messages_arrive_in_order_however_large(
    connections: tuple[Connection, Connection],
) -> None:
    here, there = (Side(connection, WAIT) for connection in connections)
    messages = [b"first", b"x" * LARGE, b"last"]
    for message in messages:
        here.line.send(message)
    assert [there.received.get(timeout=WAIT) for _ in messages] == messages


def test_idle_lines_stay(connections: tuple[Connection, Connection]) -> None:
    here, there = (Side(connection) for connection in connections)
    time.sleep(4 * TIMEOUT)
    assert here.ends.empty()
    assert there.ends.empty()
    assert there.received.empty()


def test_an_end_is_noticed_at_once(connections: tuple[Connection, Connection]) -> None:
    here = Side(connections[0], WAIT)
    connections[1].close()
    assert here.ends.get(timeout=1) is LineEnd.CLOSED


@pytest.mark.parametrize("message", [b"small", b"x" * LARGE])
def test_silence_is_noticed_also_by_who_sends(
    connections: tuple[Connection, Connection], message: bytes
) -> None:
    """The other side neither reads nor writes: a stopped process."""
    here = Side(connections[0])
    began = time.monotonic()
    here.line.send(message)
    assert time.monotonic() - began < TIMEOUT
    assert here.ends.get(timeout=WAIT) is LineEnd.SILENT
    assert here.ends.empty()


def test_closing_delivers_what_was_sent_and_is_no_loss_to_who_closes(
    connections: tuple[Connection, Connection],
) -> None:
    here, there = (Side(connection) for connection in connections)
    here.line.send(b"leave")
    here.line.close()
    assert there.received.get(timeout=WAIT) == b"leave"
    assert there.ends.get(timeout=WAIT) is LineEnd.CLOSED
    assert here.ends.empty()
