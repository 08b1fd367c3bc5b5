"""A pod that runs, and how it went."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.rehearsal.containers import Container, Probe
from tests.deploy.rendering import Pods


@dataclass(frozen=True)
class Ending:
    """How a pod went."""

    seconds: float
    killed: bool
    status: int


@dataclass
class Pod:
    """A running pod; ``log`` is what it has printed."""

    name: str
    address: str
    template: Pods
    process: subprocess.Popen[bytes]
    log_file: Path
    is_ready: bool = False
    is_ending: bool = False

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def container(self) -> Container:
        return Container(self.template, self.template.container)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def main_process(self) -> int:
        """The container's first process, seen from outside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def answers(self, probe: Probe) -> bool:
        with grpc.insecure_channel(f"{self.address}:{probe.port}") as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=probe.service), timeout=probe.timeout
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
