"""An executor that is started for a plan, warms up, and loads its model anew for another plan."""

from __future__ import annotations

import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest
import structlog
import torch
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2
from ditplan.v1.executor_pb2 import Executor, GetExecutorRequest, GetExecutorResponse
from ditplan.v1.executor_pb2_grpc import ExecutorServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor.agent.dialer import Dialer
from executor.agent.runner import Runner
from executor.agent.shutdown import Shutdown
from executor.agent.telemetry.facts import Facts
from executor.codec_placement import executor_to_proto
from executor.placement.load import LoadedPipeline, load
from executor.placement.placement import UNSHARED, Placement
from executor.runtime.held import Held
from executor.runtime.one_rank import OneRank
from tests.executor.agent.process import ENVIRONMENT, REPOSITORY, WAIT, Process, command
from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.programs import program

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def quantized(steps: str, kind: str = "int8_weight_only") -> plan_pb2.Program:
    message = program(steps)
    message.placement.quant_type = kind
    message.placement.exclude_layers.extend(["embed", "norm"])
    return message


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    message = quantized("FFCF")
    file = tmp_path / "plan.binpb"
    plan = plan_pb2.Plan(plan_id=plan_id(message), program=message)
    file.write_bytes(plan.SerializeToString())
    return file


@pytest.fixture
def process(planner: ScriptedPlanner, checkpoint: Path, plan: Path) -> Iterator[Process]:
    """Of a name that sorts before no other; it is warm when it is ready."""
    process = Process(
        "--planner", planner.address, "--model", str(checkpoint), "--name", "there",
        "--plan", str(plan), "--verbose", "--allow-reload",
        "--warmup", "--warmup-resolutions", "32x32,64x32",
    )  # fmt: skip
    yield process
    process.close()


def _describe(address: str) -> GetExecutorResponse:
    with grpc.insecure_channel(address) as channel:
        return ExecutorServiceStub(channel).GetExecutor(GetExecutorRequest(), timeout=5)


def _announced(planner: ScriptedPlanner, calls: int) -> Executor:
    """What the executor says of itself in a call after so many."""
    until = time.monotonic() + WAIT
    while len(planner.asked) <= calls and time.monotonic() < until:
        time.sleep(0.01)
    return planner.asked[-1].executor


def test_it_holds_a_plan_and_reloads_for_another(
    process: Process, planner: ScriptedPlanner
) -> None:
    address = process.wait_for("listening")["address"]
    process.wait_for("planner_reached")
    events = [entry["event"] for entry in process.log]
    # No work is asked for before it is warm.
    assert events.index("model_loaded") < events.index("warmed_up") < len(events) - 1
    warm = [entry["size"] for entry in process.log if entry["event"] == "warmed_up"]
    assert warm == ["32x32", "64x32"]
    assert {"layers_quantized", "layers_not_quantized"} <= set(events)
    described = _describe(address)
    assert described.executor.placement == quantized("F").placement
    assert described.executor.allow_reload
    assert {layers.quant_type for layers in described.layers} == {"int8_weight_only", ""}

    first = planner.offer(Job(quantized("FFC")))
    assert first.over.wait(WAIT)
    assert first.completion is not None
    assert first.completion.reload_seconds == 0

    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        second = planner.offer(Job(program("FFC"), name="generations/2"))
        assert next(watch).status == NOT_SERVING
        assert next(watch).status == SERVING
    assert second.over.wait(WAIT)
    assert second.completion is not None, second.failure
    assert 0 < second.completion.reload_seconds < WAIT
    assert not _announced(planner, len(planner.asked)).placement.quant_type
    assert not _describe(address).layers

    # What the device cannot do is refused, and what is held stays.
    third = planner.offer(Job(quantized("FF", "float8_per_tensor"), name="generations/3"))
    assert third.over.wait(WAIT)
    assert third.failure is not None
    assert third.failure.code == "FAILED_PRECONDITION"
    assert "float8_per_tensor needs a CUDA device" in third.failure.message
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest()
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status == SERVING
    again = planner.offer(Job(program("FFC"), name="generations/4"))
    assert again.over.wait(WAIT)
    assert again.completion is not None
    assert again.completion.reload_seconds == 0
    assert again.artifacts["image.png"] == second.artifacts["image.png"]
    assert again.artifacts["image.png"] != first.artifacts["image.png"]
    # What no reload would settle is refused as ever.
    other = program("FF")
    other.model.pipeline_class = "WanPipeline"
    fourth = planner.offer(Job(other, name="generations/5"))
    assert fourth.over.wait(WAIT)
    assert fourth.failure is not None
    assert "the plan is for WanPipeline" in fourth.failure.message
    # Nor is anything loaded for a plan that did not arrive as it was.
    loads = sum(entry["event"] == "model_loaded" for entry in process.log)
    damaged = planner.offer(Job(quantized("FF"), name="generations/6", plan_id="0" * 64))
    assert damaged.over.wait(WAIT)
    assert damaged.failure is not None
    assert damaged.failure.code == "DATA_LOSS"
    ended = process.wait_for("run_failed")
    while ended["code"] != "DATA_LOSS":
        ended = process.wait_for("run_failed")
    assert sum(entry["event"] == "model_loaded" for entry in process.log) == loads + 1


def test_a_model_that_is_gone_ends_an_executor_that_reloads(
    planner: ScriptedPlanner, checkpoint: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.symlink_to(checkpoint)
    process = Process("--planner", planner.address, "--model", str(model), "--allow-reload")
    try:
        process.wait_for("planner_reached")
        model.unlink()
        job = planner.offer(Job(quantized("FF")))
        assert job.over.wait(WAIT)
        assert job.failure is not None
        assert job.failure.code == "FAILED_PRECONDITION"
        assert "no such directory" in job.failure.message
        assert process.exit_status() == 1
    finally:
        process.close()


def test_a_plan_that_it_could_not_run_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = program("FF")
    other.model.pipeline_class = "WanPipeline"
    other.attention_backend = "_flash_3"
    file = tmp_path / "plan.binpb"
    file.write_bytes(plan_pb2.Plan(plan_id=plan_id(other), program=other).SerializeToString())
    arguments = command("--planner", "127.0.0.1:1", "--model", str(checkpoint), "--plan", str(file))
    ended = subprocess.run(
        arguments, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=WAIT
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: --plan: ")
    assert "the plan is for WanPipeline" in ended.stderr
    assert "attention backend _flash_3, which this executor cannot run" in ended.stderr


def test_nothing_of_a_run_holds_the_weights_that_are_let_go_of(
    planner: ScriptedPlanner, checkpoint: Path
) -> None:
    old: list[weakref.ref[torch.nn.Module]] = []

    def loaded(placement: Placement) -> LoadedPipeline:
        assert [ref() for ref in old] == [None] * len(old)
        return load(str(checkpoint), quantization=placement.quantization)

    ranks, log = OneRank(Held(loaded, UNSHARED)), structlog.get_logger()
    facts = Facts()
    runner = Runner(
        ranks,
        name="here",
        shutdown=Shutdown(drain_seconds=60),
        on_begin=lambda *run: None,
        reloading=nullcontext,
        log=log,
        facts=facts,
    )
    dialer = Dialer(planner.address, stop=threading.Event(), log=log, facts=facts)
    dialer.announce(executor_to_proto("here", ranks.loaded, allow_reload=True))
    for name, message in (("generations/1", program("FC")), ("generations/2", quantized("FC"))):
        job = planner.offer(Job(message, name=name))
        work = dialer.acquire()
        assert work is not None
        runner.run(dialer.stub, work.lease, work.assignment)
        assert job.completion is not None, job.failure
        components = ranks.loaded.pipeline.components.values()
        old += [weakref.ref(each) for each in components if isinstance(each, torch.nn.Module)]
        del components
    dialer.close()
    assert len({ref() for ref in old} - {None}) == len(old) // 2
