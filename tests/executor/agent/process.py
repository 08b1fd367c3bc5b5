"""`python -m executor` as a real process."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

WAIT = 60
REPOSITORY = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "executor", *arguments]


class Process:
    """An executor and its log, read line by line as it comes."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            command(*arguments), cwd=REPOSITORY, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reader.start()
        self.log: list[dict[str, Any]] = []

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log line of an event; every line on the way is JSON."""
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            try:
                entry: dict[str, Any] = json.loads(self._lines.get(timeout=0.1))
            except queue.Empty:
                continue
            self.log.append(entry)
            if entry["event"] == event:
                return entry
        raise AssertionError(f"no {event!r} in {self.log}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def exit_status(self, seconds: float = WAIT) -> int:
        return self._process.wait(seconds)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        assert self._process.stderr is not None
        self._process.stderr.close()
