"""Executors that an autoscaler adds and takes away, asked for as KEDA asks."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.keda import externalscaler_pb2 as keda
from ditplan.keda.externalscaler_pb2_grpc import ExternalScalerStub
from ditplan.v1 import generation_pb2
from ditplan.v1.generation_pb2_grpc import GenerationServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.processes import Service, ditplan, eventually, free_address
from tests.e2e.test_foreign import GRPCURL, ROOT

LONG = 400
TARGET = 60
CONTRACT = ("-import-path", str(ROOT / "proto"), "-proto", "ditplan/keda/externalscaler.proto")
METRIC = "queued-predicted-seconds"
SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED

Start = Callable[..., Service]


class Scaled(Service):
    """A planner that tells KEDA how much work there is."""

    def __init__(self, directory: Path) -> None:
        self.scaler = free_address()
        arguments = ("--data", str(directory / "data"), "--scaler-listen", self.scaler)
        arguments += ("--model-root", "/")
        super().__init__(directory, "planner", "-m", "planner", "serve", "planner", *arguments)


class Keda:
    """Watches and polls as KEDA's operator does, and divides as the autoscaler does."""

    def __init__(self, address: str, model: str) -> None:
        self.changes: list[tuple[float, bool]] = []
        self.polls: list[tuple[float, bool, int]] = []
        self._channel = grpc.insecure_channel(address)
        self._stub = ExternalScalerStub(self._channel)
        metadata = {"scalerAddress": address, "model": model, "targetSeconds": str(TARGET)}
        self._reference = keda.ScaledObjectRef(
            name="executor", namespace="ditplan", scalerMetadata=metadata
        )
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._poll, self._watch)]
        for thread in self._threads:
            thread.start()

    def _poll(self) -> None:
        while not self._ended.wait(0.1):
            self.polls.append((time.monotonic(), *self.now()))

    def now(self) -> tuple[bool, int]:
        """Whether there is work, and how many executors there should be."""
        [spec] = self._stub.GetMetricSpec(self._reference, timeout=5).metricSpecs
        request = keda.GetMetricsRequest(
            scaledObjectRef=self._reference, metricName=spec.metricName
        )
        [value] = self._stub.GetMetrics(request, timeout=5).metricValues
        active = self._stub.IsActive(self._reference, timeout=5).result
        return active, math.ceil(value.metricValueFloat / spec.targetSizeFloat)

    def _watch(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for answer in self._stub.StreamIsActive(self._reference):
                self.changes.append((time.monotonic(), answer.result))

    def close(self) -> None:
        self._ended.set()
        polling, watching = self._threads
        polling.join(10)
        self._channel.close()
        watching.join(10)


@pytest.fixture
def planner(tmp_path: Path, services: list[Service]) -> Scaled:
    planner = Scaled(tmp_path)
    services.append(planner)
    planner.await_ready()
    return planner


@pytest.fixture
def asker(planner: Scaled, checkpoint: Path) -> Iterator[Keda]:
    asker = Keda(planner.scaler, str(checkpoint))
    yield asker
    asker.close()


@pytest.fixture
def generations(planner: Scaled) -> Iterator[GenerationServiceStub]:
    with grpc.insecure_channel(planner.address) as channel:
        yield GenerationServiceStub(channel)


def _create(generations: GenerationServiceStub, checkpoint: Path, steps: int, seed: int) -> str:
    spec = generation_pb2.GenerationSpec(
        model=str(checkpoint),
        prompt="a red circle",
        num_inference_steps=steps,
        seed=seed,
        height=32,
        width=32,
    )
    request = generation_pb2.CreateGenerationRequest(spec=spec, queue_without_executor=True)
    return str(generations.CreateGeneration(request, timeout=20).generation.name)


def _get(generations: GenerationServiceStub, name: str) -> generation_pb2.Generation:
    request = generation_pb2.GetGenerationRequest(name=name)
    return generations.GetGeneration(request, timeout=20).generation


def _is_ready(executor: Service) -> bool:
    with grpc.insecure_channel(executor.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        status = check(health_pb2.HealthCheckRequest(), timeout=5).status
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize(("drain", "attempt"), [("60", 1), ("0.5", 2)])
def test_scale_in_loses_no_run_and_never_asks_for_fewer_than_run(
    planner: Scaled,
    asker: Keda,
    generations: GenerationServiceStub,
    start_executor: Start,
    checkpoint: Path,
    drain: str,
    attempt: int,
) -> None:
    executors = {
        name: start_executor(planner, "--drain-seconds", drain, name=name)
        for name in ("first", "second")
    }
    eventually(lambda: asker.polls)
    assert asker.now() == (False, 0)
    began = time.monotonic()
    names = [_create(generations, checkpoint, LONG, seed) for seed in range(2)]
    eventually(lambda: all(_get(generations, name).steps_done > 5 for name in names))
    both_run = time.monotonic()
    leaving = _get(generations, names[0])
    executor = executors[leaving.executor]
    eventually(lambda: asker.polls[-1][0] > both_run + 0.3)

    executor.process.terminate()
    eventually(lambda: not _is_ready(executor), 2)
    not_ready = time.monotonic()
    last = _create(generations, checkpoint, 8, 7)
    assert executor.process.wait(60) == 0, executor.log
    eventually(lambda: all(_get(generations, n).state == SUCCEEDED for n in [*names, last]), 60)
    ended = time.monotonic()
    eventually(lambda: len(asker.changes) == 3, 2)

    drained = _get(generations, leaving.name)
    assert drained.attempt == attempt
    assert (drained.executor == leaving.executor) == (attempt == 1)
    assert [step.step for step in drained.record.steps] == list(range(LONG))
    assert [active for _, active in asker.changes] == [False, True, False]
    assert asker.changes[1][0] - began < 1
    assert asker.changes[2][0] - ended < 1
    both = [polled for at, *polled in asker.polls if both_run < at < not_ready]
    assert {tuple(polled) for polled in both} == {(True, 2)}
    during = [polled for at, *polled in asker.polls if both_run < at < ended - 1]
    assert all(active and wanted >= 1 for active, wanted in during)
    assert asker.now() == (False, 0)


def test_work_without_any_executor_asks_for_the_first(
    planner: Scaled,
    asker: Keda,
    generations: GenerationServiceStub,
    start_executor: Start,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    command = ("generate", "--planner", planner.address, "--model", checkpoint, "--queue")
    options = ("--prompt", "a red circle", "--steps", "2", "--height", "32", "--width", "32")
    out = tmp_path / "picture.png"
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(ditplan, *command, *options, "--out", out)
        eventually(lambda: "generation_queued" in planner.log)
        executor = start_executor(planner)
        run.result(60)
    assert out.read_bytes().startswith(b"\x89PNG")

    # The planner knows the model from the executor that is scaled away, too.
    eventually(lambda: not asker.changes[-1][1], 1)
    assert executor.stop() == 0
    name = _create(generations, checkpoint, 8, 1)
    eventually(lambda: asker.changes[-1][1], 1)
    assert asker.now() == (True, 1)
    start_executor(planner)
    eventually(lambda: _get(generations, name).state == SUCCEEDED)
    eventually(lambda: not asker.changes[-1][1], 1)


@pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not on the path")
def test_grpcurl_asks_by_the_contract_alone(planner: Scaled) -> None:
    def ask(method: str, data: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        call = (planner.scaler, f"externalscaler.ExternalScaler/{method}")
        return subprocess.run(
            [
                str(GRPCURL),
                "-plaintext",
                "-max-time",
                "20",
                *CONTRACT,
                "-d",
                json.dumps(data),
                *call,
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    reference = {"name": "x", "namespace": "y", "scalerMetadata": {"targetSeconds": "90"}}
    assert json.loads(ask("IsActive", reference).stdout) == {}
    spec = json.loads(ask("GetMetricSpec", reference).stdout)
    expected = {"metricName": METRIC, "targetSize": "90", "targetSizeFloat": 90}
    assert spec == {"metricSpecs": [expected]}
    asked = {"scaledObjectRef": reference, "metricName": METRIC}
    assert json.loads(ask("GetMetrics", asked).stdout) == {"metricValues": [{"metricName": METRIC}]}
    refused = ask("GetMetricSpec", {"scalerMetadata": {"targetSeconds": "soon"}})
    assert "InvalidArgument" in refused.stderr
    assert "'soon' is no whole number of seconds from 1 to 86400" in refused.stderr
