"""Planner and executor as processes, whose executor has a GPU."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from ditplan.v1 import monitor_pb2, monitor_pb2_grpc
from PIL import Image

from tests.e2e.conftest import services
from tests.e2e.processes import Service, ditplan, eventually, free_address

__all__ = ["services"]

# Processes start, CUDA starts, kernels load.
pytestmark = pytest.mark.timeout(200)

MODEL = Path(__file__).parents[2] / "deploy" / "demo" / "model"
CACHE = Path(__file__).parents[2] / "deploy" / "demo" / "cache.yaml"
PROMPT = "a yellow star at the top right on a blue background"
Start = Callable[..., Service]


@pytest.fixture
def planner(tmp_path: Path, services: list[Service]) -> Service:
    arguments = ("-m", "planner", "serve", "planner", "--data", str(tmp_path / "data"))
    service = Service(tmp_path, "planner", *arguments)
    services.append(service)
    service.await_ready()
    return service


@pytest.fixture
def start(tmp_path: Path, services: list[Service], planner: Service) -> Start:
    def executor(name: str, *options: str, device: str = "cuda", torchrun: bool = False) -> Service:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
        service = Service(
            tmp_path,
            name,
            *(launcher if torchrun else ()),
            *("-m", "executor", "--name", name, "--planner", planner.address),
            *("--model", str(MODEL), "--served-name", "demo", "--device", device, *options),
        )
        services.append(service)
        service.await_ready(120)
        return service

    return executor


@pytest.fixture
def generate(planner: Service, tmp_path: Path) -> Callable[..., Path]:
    def draw(name: str, *options: str) -> Path:
        ditplan(
            *("generate", "--planner", planner.address, "--model", "demo", "--config", CACHE),
            *("--prompt", PROMPT, "--seed", "1", "--steps", "28", *options),
            *("--out", tmp_path / f"{name}.png", "--record", tmp_path / f"{name}.json"),
            *("--save-latents", tmp_path / f"{name}.safetensors"),
        )
        return tmp_path / f"{name}.png"

    return draw


def _kinds(picture: Path) -> list[str]:
    record = json.loads(picture.with_suffix(".json").read_text())
    return [step["ops"][0]["kind"] for step in record["steps"]]


def _difference(one: Path, other: Path) -> float:
    """Root mean square, of 255."""
    a, b = (np.asarray(Image.open(each), np.float64) for each in (one, other))
    return float(np.sqrt(np.square(a - b).mean()))


def test_a_picture_its_replay_and_that_of_the_cpu(
    start: Start, generate: Callable[..., Path], planner: Service, tmp_path: Path
) -> None:
    metrics = free_address()
    executor = start("gpu", "--metrics-listen", metrics)
    picture = generate("picture")
    assert "CACHED" in " ".join(_kinds(picture))
    again = generate("again")
    assert again.read_bytes() == picture.read_bytes()
    replayed = tmp_path / "replayed.png"
    record = picture.with_suffix(".json")
    ditplan("generate", "--planner", planner.address, "--replay", record, "--out", replayed)
    assert replayed.read_bytes() == picture.read_bytes()
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
        exposed = answer.read().decode()
    line = 'ditplan_executor_device_memory_bytes{kind="peak"} '
    peak = float(exposed.partition(line)[2].split("\n", 1)[0])
    assert peak > 2**20
    assert executor.stop() == 0

    start("cpu", "--dtype", "bfloat16", device="cpu")
    there = generate("there")
    print(f"{_difference(there, picture):.2f} of 255 from the CPU's picture")
    assert _difference(there, picture) < 8


def test_a_killed_executor_is_replaced(
    start: Start, generate: Callable[..., Path], planner: Service, tmp_path: Path
) -> None:
    executors = {name: start(name) for name in ("first", "second")}
    long = ("--steps", "300")
    undisturbed = generate("undisturbed", *long)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(generate, "disturbed", *long)
        with grpc.insecure_channel(planner.address) as channel:
            stub = monitor_pb2_grpc.MonitorServiceStub(channel)
            lost = ""

            def is_denoising() -> bool:
                nonlocal lost
                request = monitor_pb2.WatchStatusRequest(once=True)
                [status] = stub.WatchStatus(request, timeout=5)
                found = (each for each in status.executors if each.run.steps_done > 20)
                lost = next((each.executor.name for each in found), "")
                return bool(lost)

            eventually(is_denoising, 30)
        executors[lost].kill()
        picture = run.result(60)
    assert picture.read_bytes() == undisturbed.read_bytes()
    assert "was lost" in planner.log


def test_without_memory_a_run_fails_and_the_next_succeeds(
    start: Start, generate: Callable[..., Path], planner: Service, tmp_path: Path
) -> None:
    start("gpu")
    generate("small")
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 2**26, dtype=torch.uint8, device="cuda")
    options = ("--planner", planner.address, "--model", "demo", "--prompt", PROMPT)
    large = ("--steps", "2", "--height", "1536", "--width", "1536", "--out", tmp_path / "large.png")
    failed = ditplan("generate", *options, *large, check=False)
    assert failed.returncode != 0
    assert "RESOURCE_EXHAUSTED" in failed.stderr + failed.stdout
    assert "out of memory" in failed.stderr + failed.stdout
    del hog
    torch.cuda.empty_cache()
    assert generate("next").read_bytes() == (tmp_path / "small.png").read_bytes()


def test_one_rank_under_torchrun_with_nccl(start: Start, generate: Callable[..., Path]) -> None:
    alone = start("alone")
    picture = generate("picture")
    assert alone.stop() == 0
    group = start("group", torchrun=True)
    assert generate("ranks").read_bytes() == picture.read_bytes()
    # torchrun itself calls its end by a signal a failure.
    group.stop()
