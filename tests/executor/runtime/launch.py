"""Executors of several ranks under torchrun, that fail when a test says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ditplan.v1 import plan_pb2

from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.programs import program
from tests.executor.runtime.faulty import FAULTS, fault_file

START_SECONDS = 100.0
REPOSITORY = Path(__file__).parents[3]


class Launch:
    """A torchrun of executors; ``log`` is every line that is JSON."""

    def __init__(
        self,
        directory: Path,
        planner: str,
        model: Path,
        ranks: int,
        *arguments: str,
        restarts: int = 3,
        **environment: str,
    ) -> None:
        self.faults = directory
        self._log = directory / "log"
        command = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
        command += ["-m", "tests.executor.runtime.faulty"]
        command += ["--planner", planner, "--model", str(model), "--served-name", "tiny"]
        settings = {FAULTS: str(directory), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=REPOSITORY,
                env={**os.environ, **settings, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]

    def arm(self, rank: int, kind: str, step: int) -> Path:
        """Has a rank fail in a step of its next run; the file that is there once it has."""
        file = fault_file(self.faults, rank)
        fired = file.with_suffix(".fired")
        fired.unlink(missing_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps({"kind": kind, "step": step}))
        partial.rename(file)
        return fired

    def kill_rank(self, executor: str, rank: int) -> None:
        """SIGKILL to the process that has loaded the model as that rank."""
        [loaded] = [
            entry
            for entry in self.events("model_loaded")
            if (entry["executor"], entry["rank"]) == (executor, rank)
        ]
        os.kill(loaded["pid"], signal.SIGKILL)

    def await_that(self, condition: Callable[[], Any], seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text[-5000:]
            assert self.process.poll() is None, self.text[-5000:]
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM to the launcher, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def shared_program(steps: str, **sizes: int) -> plan_pb2.Program:
    """The program of a letter a step, under a mesh such as ``ulysses_size=2``."""
    message = program(steps)
    for name, size in sizes.items():
        setattr(message.topology, name, size)
        message.topology.world_size *= size
    message.topology.ring_rotate_method = "p2p"
    message.topology.ring_convert_to_fp32 = True
    return message


class Work:
    """Numbers the jobs that go to a scripted planner."""

    def __init__(self, planner: ScriptedPlanner) -> None:
        self._planner = planner
        self._count = 0

    def offer(self, message: plan_pb2.Program, **options: Any) -> Job:
        self._count += 1
        return self._planner.offer(Job(message, name=f"generations/{self._count}", **options))
