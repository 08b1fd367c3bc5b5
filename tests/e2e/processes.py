"""Planner, executors and commands as the processes that users run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS = 60.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Service:
    """A planner or executor; ``log`` is what it printed."""

    def __init__(
        self, directory: Path, name: str, *arguments: str, address: str | None = None
    ) -> None:
        self.address = address or free_address()
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments, "--listen", self.address],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def await_ready(self, seconds: float = START_SECONDS, *, health: str = "") -> None:
        """``health``: where it answers health checks in plaintext, if not at its address."""
        with grpc.insecure_channel(health or self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def ready() -> bool:
                assert self.process.poll() is None, self.log
                try:
                    status = stub.Check(health_pb2.HealthCheckRequest(), timeout=1).status
                except grpc.RpcError:
                    return False
                return bool(status == health_pb2.HealthCheckResponse.SERVING)

            eventually(ready, seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Fleet:
    """Services by their names that a module's tests share.

    Each is started again where it was once it is gone and `revive` is called.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._arguments: dict[str, tuple[str, ...]] = {}
        self._services: dict[str, Service] = {}

    def __getattr__(self, name: str) -> Service:
        return self._services[name]

    def start(self, name: str, *arguments: str, address: str | None = None) -> Service:
        service = Service(self.directory, name, *arguments, address=address)
        self._arguments[name] = arguments
        self._services[name] = service
        service.await_ready()
        return service

    def revive(self) -> None:
        for name, service in list(self._services.items()):
            if service.process.poll() is not None:
                self.start(name, *self._arguments[name], address=service.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self._services.values():
            service.kill()


def memory_mib(process: int) -> float:
    """What a process holds of the machine's memory (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Waits until the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def ditplan(
    *arguments: str | Path,
    check: bool = True,
    environment: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "planner", *map(str, arguments)],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        **options,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done
