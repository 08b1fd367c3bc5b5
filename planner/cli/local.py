"""A planner and an executor for one command: real processes, stopped when it is done."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS = 30.0
LOAD_SECONDS = 3600.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.1


class LocalServiceError(Exception):
    """A process did not come up, or ended; the message holds the end of what it said."""


@contextmanager
def local_service(
    model: str, *, waiting: Callable[[str], None] = lambda what: None
) -> Iterator[str]:
    """Brings up a planner and an executor that holds the model; the value is their address.

    ``waiting`` is told what is being waited for.

    Raises:
        LocalServiceError: one of them did not come up.
    """
    directory = Path(tempfile.mkdtemp(prefix="ditplan-"))
    # A socket file: no port to be taken by somebody else, no other user to dial in.
    address = f"unix:{directory / 'planner.sock'}"
    processes: list[_Process] = []
    try:
        arguments = ["--listen", address, "--data", str(directory / "data")]
        if Path(model).is_dir():
            arguments += ["--model-root", model]
        waiting("planner")
        planner = _Process("planner", ["-m", "planner", "serve", "planner", *arguments], directory)
        processes.append(planner)
        _await_serving(address, planner, START_SECONDS)
        waiting("executor")
        listen = f"unix:{directory / 'executor.sock'}"
        executor = _Process(
            "executor",
            ["-m", "executor", "--planner", address, "--model", model, "--listen", listen],
            directory,
        )
        processes.append(executor)
        _await_serving(listen, executor, LOAD_SECONDS)
        yield address
    finally:
        for process in reversed(processes):
            process.stop()
        shutil.rmtree(directory, ignore_errors=True)


class _Process:
    def __init__(self, name: str, arguments: list[str], directory: Path) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is the command's to handle: it stops them in order.
                start_new_session=True,
            )

    def check(self) -> None:
        status = self._process.poll()
        if status is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()[-8:]
            raise LocalServiceError(
                "\n".join([f"the {self.name} ended with status {status}", *said])
            )

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _await_serving(address: str, process: _Process, seconds: float) -> None:
    """Returns once the process says that it is ready."""
    deadline = time.monotonic() + seconds
    request = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            process.check()
            try:
                if stub.Check(request, timeout=1).status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            if time.monotonic() > deadline:
                raise LocalServiceError(f"the {process.name} is not ready after {seconds:g} s")
            time.sleep(_POLL_SECONDS)
