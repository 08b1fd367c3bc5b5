"""One picture through both images, over gRPC, and the same one by this environment."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.images.engine import REPOSITORY, Image
from tests.deploy.images.sandbox import Process, Sandbox
from tests.e2e.processes import ditplan, eventually, free_address

MODEL = REPOSITORY / "deploy" / "demo" / "model"
CONFIG = REPOSITORY / "deploy" / "demo" / "cache.yaml"
_MODEL_THERE = "/models/demo"
_WHAT = ("--prompt", "a yellow star at the top right on a blue background", "--seed", "1")
_QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
_LOAD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """The bytes of a picture (PNG) and of its latents (safetensors)."""

    picture: bytes
    latents: bytes


def draw_by_images(planner: Image, executor: Image, work: Path) -> Drawn:
    """A planner, an executor under torchrun and the planner image's own client."""
    models = {_MODEL_THERE: MODEL}
    address, health = free_address(), free_address()
    serving = Sandbox(planner, work / "planner", models)
    executing = Sandbox(executor, work / "executor", models)
    client = Sandbox(planner, work / "client", models)
    serve = ["ditplan", "serve", "planner", "--listen", address, "--data", "/tmp/data"]
    launch = ["torchrun", "--standalone", "--nproc-per-node=1", "-m", "executor"]
    launch += ["--planner", address, "--model", _MODEL_THERE, "--listen", health]
    shutil.copy(CONFIG, client.tmp / "cache.yaml")
    with ExitStack() as stack:
        process = stack.enter_context(
            serving.serving(work / "planner.log", *serve, "--model-root", "/models", **_QUIET)
        )
        _await_serving(address, process)
        process = stack.enter_context(executing.serving(work / "executor.log", *launch, **_QUIET))
        _await_serving(health, process)
        client.run(
            *("ditplan", "generate", "--planner", address, "--model", _MODEL_THERE, *_WHAT),
            *("--config", "cache.yaml", "--out", "star.png", "--save-latents", "star.safetensors"),
            **_QUIET,
        )
    log = (work / "executor.log").read_text()
    # torchrun's own status after SIGTERM is 1, whatever became of its ranks.
    assert '"event": "drained"' in log, log
    return _drawn(client.tmp)


def draw_here(work: Path) -> Drawn:
    """The same by the code of the tree and what is installed in this environment."""
    out = ("--out", work / "star.png", "--save-latents", work / "star.safetensors")
    ditplan("generate", "--model", MODEL, *_WHAT, "--config", CONFIG, *out)
    return _drawn(work)


def _drawn(directory: Path) -> Drawn:
    picture, latents = directory / "star.png", directory / "star.safetensors"
    return Drawn(picture.read_bytes(), latents.read_bytes())


def _await_serving(address: str, process: Process) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def serving() -> bool:
            process.require_running()
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        eventually(serving, _LOAD_SECONDS)
