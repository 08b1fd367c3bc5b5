"""A planner and an executor for one command: real processes, stopped when it is done."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from ditplan.v1 import plan_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planner.cli.plan_file import write_plan
from planner.cli.signals import leaving_on
from planner.compile.request import MAX_SIDE

START_SECONDS = 30.0
LOAD_SECONDS = 3600.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.1
# What the kernels of Linux and macOS take, with room for the final zero.
_MAX_SOCKET_PATH = 100


class LocalServiceError(Exception):
    """A process did not come up, or ended; the message holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class LocalService:
    """The addresses of a planner and of its executor."""

    planner: str
    executor: str


@contextmanager
def local_service(
    model: str, plan: plan_pb2.Plan | None = None, options: Sequence[str] = ()
) -> Iterator[LocalService]:
    """Brings up a planner and an executor of as many ranks as the plan has, which holds the model
    as the plan needs it; without a plan one rank, which holds it as it is stored.

    ``options``: of the executor, beside those.

    Raises:
        LocalServiceError: one of them did not come up.
    """
    directory = _make_directory()
    # Socket files: no port to be taken by somebody else, no other user to dial in.
    address, own = (f"unix:{directory / name}.sock" for name in ("planner", "executor"))
    serve = ["planner", "serve", "planner", "--listen", address, "--data", str(directory / "data")]
    # Who runs their own executor may ask all of it.
    serve += ["--max-pixels", str(MAX_SIDE**2)]
    if Path(model).is_dir():
        serve += ["--model-root", model]
    ranks = 1 if plan is None else plan.program.topology.world_size
    execute = [*_launcher(ranks), "executor", "--planner", address, "--model", model]
    execute += ["--listen", own, *options]
    processes: list[_Process] = []
    with leaving_on(signal.SIGTERM, signal.SIGHUP):
        try:
            if plan is not None:
                write_plan(str(directory / "plan.binpb"), plan)
                execute += ["--plan", str(directory / "plan.binpb")]
            # Both before the first gRPC call of this process, whose threads do not go with a fork.
            processes += [_Process("planner", serve, directory)]
            processes += [_Process("executor", execute, directory, ranks=ranks)]
            planner, executor = processes
            _await_serving(address, planner, START_SECONDS, processes)
            _await_serving(own, executor, LOAD_SECONDS, processes)
            yield LocalService(address, own)
        finally:
            for process in reversed(processes):
                process.stop()
            shutil.rmtree(directory, ignore_errors=True)


def _launcher(ranks: int) -> list[str]:
    """The module that starts the ranks, with its options; none for one rank."""
    if ranks == 1:
        return []
    # Its rendezvous is on this host. A rank that dies once may come again.
    options = ["--standalone", "--local-addr", "127.0.0.1", "--max-restarts", "1"]
    return ["torch.distributed.run", *options, "--nproc-per-node", str(ranks), "-m"]


def _make_directory() -> Path:
    """A new directory whose path is short enough for the sockets in it."""
    directory = Path(tempfile.mkdtemp(prefix="ditplan-"))
    if len(os.fsencode(directory / "executor.sock")) < _MAX_SOCKET_PATH:
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="ditplan-", dir="/tmp"))


def _end_with_parent() -> None:
    """Has Linux end this process when its parent dies without a word, by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class _Process:
    def __init__(self, name: str, arguments: list[str], directory: Path, *, ranks: int = 1) -> None:
        # Together the ranks have one thread a core; torchrun would give each a single one.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**threads, **os.environ} if ranks > 1 else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is the command's to handle: it stops them in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def check(self) -> None:
        status = self._process.poll()
        if status is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            # What it said itself; a launcher of several ranks says much more behind it.
            said = [line for line in lines if line.startswith("error: ")] or lines[-8:]
            text = "\n".join(dict.fromkeys(said))
            raise LocalServiceError(f"the {self.name} ended with status {status}\n{text}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _await_serving(
    address: str, process: _Process, seconds: float, processes: list[_Process]
) -> None:
    """Returns once the process says that it is ready; all of them have to live meanwhile."""
    deadline = time.monotonic() + seconds
    request = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            for each in processes:
                each.check()
            try:
                if stub.Check(request, timeout=1).status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            if time.monotonic() > deadline:
                raise LocalServiceError(f"the {process.name} is not ready after {seconds:g} s")
            time.sleep(_POLL_SECONDS)
