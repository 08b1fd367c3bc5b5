"""``ditplan top`` on a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.processes import ENVIRONMENT, Service, eventually


class Terminal:
    """A command on a terminal; ``shown`` is all that it has written there."""

    def __init__(self, *arguments: str) -> None:
        self._end, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "planner", *arguments],
            stdin=other,
            stdout=other,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            text=True,
        )
        os.close(other)
        self.shown = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        # Linux says by an error that nobody holds the other end any more.
        try:
            while data := os.read(self._end, 65536):
                self.shown += data.decode(errors="replace")
        except OSError:
            pass

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._reader.join()
        os.close(self._end)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_goes_on_with_the_next_planner_and_ends_quietly(
    start_planner: Callable[..., Service], number: signal.Signals, status: int
) -> None:
    planner = start_planner()
    with terminal("top", "--planner", planner.address, "--interval", "0.2") as top:
        eventually(lambda: top.shown.count("no executors connected") >= 2)
        planner.kill()
        eventually(lambda: "trying again" in top.shown)
        shown = len(top.shown)
        start_planner(planner.address)
        eventually(lambda: "no executors connected" in top.shown[shown:].rpartition("again")[2])
        top.process.send_signal(number)
        assert top.process.wait(10) == status
        assert top.process.stderr is not None
        assert top.process.stderr.read() == ""
        # The screen that was there before is back.
        eventually(lambda: top.shown.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?1049l")))
