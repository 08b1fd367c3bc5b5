"""A drain ends, also where the run cannot be stopped in order."""

from __future__ import annotations

import signal
import subprocess
import sys

from executor.agent.shutdown import STUCK_STATUS

STUCK = """
import time
from executor.agent import shutdown
shutdown.FAREWELL_SECONDS = 0.1
with shutdown.Shutdown(drain_seconds=0.1) as held:
    held.serving(on_drain=lambda: None)
    print("serving", flush=True)
    until = time.monotonic() + {seconds}
    while time.monotonic() < until:
        time.sleep(0.05)
"""


def _run(seconds: float) -> int:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(seconds=seconds)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(10)
        finally:
            process.kill()


def test_a_run_that_does_not_stop_is_ended_after_the_drain() -> None:
    assert _run(30) == STUCK_STATUS


def test_a_run_that_stops_in_time_is_not() -> None:
    assert _run(0.2) == 0
