"""A planner and executors as separate processes, through the public API and the command line."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from ditplan.v1 import executor_pb2, executor_pb2_grpc, generation_pb2, generation_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.e2e.conftest import CACHE_YAML
from tests.e2e.processes import ENVIRONMENT, Fleet, Service, ditplan, eventually

Start = Callable[..., Service]
# Several seconds of work, so that something can happen in the middle.
LONG = 600
RUNNING = generation_pb2.GENERATION_STATE_RUNNING
SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED
FAILED = generation_pb2.GENERATION_STATE_FAILED
CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        data = ("--data", str(fleet.directory / "data"))
        planner = fleet.start("planner", "-m", "planner", "serve", "planner", *data)
        execute = ("-m", "executor", "--name", "one", "--planner", planner.address)
        fleet.start("executor", *execute, "--model", str(checkpoint))
        yield fleet


@pytest.fixture
def fleet(started: Fleet) -> Fleet:
    """A planner and its one executor."""
    started.revive()
    return started


@pytest.fixture
def planner(fleet: Fleet) -> Service:
    return fleet.planner


@pytest.fixture
def executor(fleet: Fleet) -> Service:
    return fleet.executor


@pytest.fixture
def stub(planner: Service) -> Iterator[generation_pb2_grpc.GenerationServiceStub]:
    with grpc.insecure_channel(planner.address) as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)


def _spec(checkpoint: Path, steps: int = 8, **fields: object) -> generation_pb2.GenerationSpec:
    return generation_pb2.GenerationSpec(
        model=str(checkpoint),
        prompt="a red circle",
        num_inference_steps=steps,
        seed=3,
        height=32,
        width=32,
        **fields,  # type: ignore[arg-type]
    )


class _Watched:
    """A generation that is followed in a thread of its own."""

    def __init__(
        self,
        stub: generation_pb2_grpc.GenerationServiceStub,
        spec: generation_pb2.GenerationSpec,
    ) -> None:
        self.events: list[generation_pb2.GenerationEvent] = []
        created = stub.CreateGeneration(
            generation_pb2.CreateGenerationRequest(spec=spec), timeout=20
        )
        self.name = created.generation.name
        self._call = stub.WatchGeneration(
            generation_pb2.WatchGenerationRequest(name=self.name), timeout=100
        )
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        for response in self._call:
            self.events.append(response.event)

    def kinds(self) -> list[str]:
        return [str(event.WhichOneof("event")) for event in list(self.events)]

    def steps(self) -> int:
        return self.kinds().count("step")

    def finished(self, seconds: float = 60) -> generation_pb2.Generation:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the generation has not ended"
        return self.events[-1].finished


def _read(
    stub: generation_pb2_grpc.GenerationServiceStub, generation: generation_pb2.Generation
) -> bytes:
    name = f"{generation.name}/artifacts/{generation.artifacts[0].name}"
    request = generation_pb2.ReadArtifactRequest(name=name)
    return b"".join(response.data for response in stub.ReadArtifact(request, timeout=20))


def test_events_tell_the_whole_run(
    stub: generation_pb2_grpc.GenerationServiceStub,
    executor: Service,
    checkpoint: Path,
    cache_yaml: Path,
) -> None:
    request = generation_pb2.GenerateRequest(spec=_spec(checkpoint, config=CACHE_YAML))
    events = [response.event for response in stub.Generate(request, timeout=60)]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["planned", "queued", "started", *["step"] * 8, "finished"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    finished = events[-1].finished
    assert finished.state == SUCCEEDED
    assert [event.step.step for event in events[3:-1]] == list(range(8))
    assert list(finished.record.steps) == [event.step for event in events[3:-1]]
    assert finished.record.plan_id == events[0].planned.plan.plan_id
    assert events[0].planned.plan.plan_id in executor.log

    # What a laptop previews is what ran.
    document = json.loads(
        ditplan(
            *("preview", cache_yaml, "--model", checkpoint, "--steps", "8", "--format", "json")
        ).stdout
    )
    assert document["plan_id"] == events[0].planned.plan.plan_id
    assert document["computed_steps"]["min"] <= sum(
        step.ops[0].kind == 1 for step in finished.record.steps
    )

    with grpc.insecure_channel(executor.address) as channel:
        known = executor_pb2_grpc.ExecutorServiceStub(channel).GetExecutor(
            executor_pb2.GetExecutorRequest(), timeout=5
        )
    assert known.executor.model == str(checkpoint)
    assert known.generation == ""


def test_the_command_line_uses_a_running_service(
    planner: Service, start_planner: Start, checkpoint: Path, cache_yaml: Path, tmp_path: Path
) -> None:
    arguments = ("generate", "--model", checkpoint, "--prompt", "x", "--steps", "6")
    arguments += ("--seed", "1", "--out", tmp_path / "x.png", "--planner")
    refused = ditplan(*arguments, start_planner().address, check=False)
    assert refused.returncode == 2
    assert "neither" in refused.stderr or "no connected executor" in refused.stderr

    ditplan(*arguments, planner.address, "--config", cache_yaml)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("cache_config:\n  Fn_compute_blocks: 1\n  Bn_compute_blocks: 60\n")
    refused = ditplan(*arguments, planner.address, "--config", wrong, check=False)
    assert refused.returncode == 2
    assert "cache_config.Bn_compute_blocks" in refused.stderr


def test_faults_of_a_config_come_as_bad_request(
    stub: generation_pb2_grpc.GenerationServiceStub, checkpoint: Path
) -> None:
    config = "cache_config:\n  warmup_interval: 0\n  residual_diff_treshold: 1\n"
    with pytest.raises(grpc.RpcError) as raised:
        list(
            stub.Generate(
                generation_pb2.GenerateRequest(spec=_spec(checkpoint, config=config)), timeout=20
            )
        )
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    status = rpc_status.from_call(raised.value)
    assert status is not None
    assert any(detail.Unpack(bad) for detail in status.details)
    faults = {violation.field: violation.description for violation in bad.field_violations}
    assert set(faults) == {
        "cache_config.warmup_interval",
        "cache_config.residual_diff_treshold",
    }
    assert "line 2, column 20" in faults["cache_config.warmup_interval"]


def test_a_killed_executor_is_replaced(
    planner: Service,
    executor: Service,
    stub: generation_pb2_grpc.GenerationServiceStub,
    start_executor: Start,
    checkpoint: Path,
) -> None:
    executors = {"one": executor, "two": start_executor(planner, name="two")}
    undisturbed = _Watched(stub, _spec(checkpoint, LONG, config=CACHE_YAML)).finished()
    run = _Watched(stub, _spec(checkpoint, LONG, config=CACHE_YAML))
    eventually(lambda: run.steps() > 5)
    lost = next(event.started.executor for event in run.events if event.HasField("started"))
    executors.pop(lost).kill()
    killed = time.monotonic()
    eventually(lambda: run.kinds().count("queued") == 2, 2.0)
    assert time.monotonic() - killed < 2.0
    finished = run.finished()
    assert finished.state == SUCCEEDED
    assert finished.attempt == 2
    assert [step.step for step in finished.record.steps] == list(range(LONG))
    assert _read(stub, finished) == _read(stub, undisturbed)
    assert finished.executor in executors
    assert f"{lost} was lost" in next(
        event.queued.reason for event in run.events if event.queued.reason
    )


def test_without_another_executor_the_run_fails_and_the_planner_goes_on(
    fleet: Fleet, stub: generation_pb2_grpc.GenerationServiceStub, checkpoint: Path
) -> None:
    run = _Watched(stub, _spec(checkpoint, LONG))
    eventually(lambda: run.steps() > 5)
    fleet.executor.kill()
    killed = time.monotonic()
    finished = run.finished(5)
    assert time.monotonic() - killed < 2.0
    assert finished.state == FAILED
    assert finished.failure.code == "UNAVAILABLE"
    assert finished.failure.step >= 5
    assert f"step {finished.failure.step} of {LONG}" in finished.failure.message
    fleet.revive()
    assert _Watched(stub, _spec(checkpoint)).finished().state == SUCCEEDED


def test_cancelling_frees_the_executor_at_once(
    stub: generation_pb2_grpc.GenerationServiceStub, checkpoint: Path
) -> None:
    run = _Watched(stub, _spec(checkpoint, 1000))
    eventually(lambda: run.steps() > 2)
    stub.CancelGeneration(generation_pb2.CancelGenerationRequest(name=run.name), timeout=5)
    assert run.finished(5).state == CANCELLED
    # A call that is cancelled takes its work with it.
    call = stub.Generate(generation_pb2.GenerateRequest(spec=_spec(checkpoint, 1000)), timeout=60)
    name = next(response.event.generation for response in call if response.event.HasField("step"))
    call.cancel()
    request = generation_pb2.GetGenerationRequest(name=name)
    eventually(lambda: stub.GetGeneration(request, timeout=5).generation.state == CANCELLED, 5)
    assert _Watched(stub, _spec(checkpoint)).finished(20).state == SUCCEEDED


def test_a_killed_planner_finds_its_runs_again(
    fleet: Fleet, stub: generation_pb2_grpc.GenerationServiceStub, checkpoint: Path
) -> None:
    undisturbed = _Watched(stub, _spec(checkpoint, LONG)).finished()
    picture = _read(stub, undisturbed)
    name = stub.CreateGeneration(
        generation_pb2.CreateGenerationRequest(spec=_spec(checkpoint, LONG)), timeout=20
    ).generation.name
    request = generation_pb2.GetGenerationRequest(name=name)
    eventually(lambda: stub.GetGeneration(request, timeout=5).generation.steps_done > 5)
    fleet.planner.kill()
    fleet.revive()
    with grpc.insecure_channel(fleet.planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        watch = generation_pb2.WatchGenerationRequest(name=name)
        events = [response.event for response in stub.WatchGeneration(watch, timeout=60)]
        finished = events[-1].finished
        assert finished.state == SUCCEEDED
        assert finished.attempt == 1, "the executor's work was not taken up again"
        assert [e.step.step for e in events if e.HasField("step")] == list(range(LONG))
        assert _read(stub, finished) == picture


def test_a_run_sits_through_a_full_disk_of_the_planner(
    planner: Service,
    executor: Service,
    stub: generation_pb2_grpc.GenerationServiceStub,
    checkpoint: Path,
) -> None:
    picture = _read(stub, _Watched(stub, _spec(checkpoint)).finished())
    run = _Watched(stub, _spec(checkpoint, 200))
    eventually(lambda: run.steps() > 5)
    ended = executor.log.count('"event": "run_finished"')
    free = resource.prlimit(planner.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(planner.process.pid, resource.RLIMIT_FSIZE, (0, free[1]))
    # Until the executor has nothing left to do but to deliver.
    eventually(lambda: executor.log.count('"event": "run_finished"') == ended + 1)
    time.sleep(1.0)
    with pytest.raises(grpc.RpcError) as refusal:
        stub.CreateGeneration(
            generation_pb2.CreateGenerationRequest(spec=_spec(checkpoint)), timeout=5
        )
    assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    resource.prlimit(planner.process.pid, resource.RLIMIT_FSIZE, free)
    finished = run.finished(20)
    assert (finished.state, finished.attempt) == (SUCCEEDED, 1)
    assert [event.step.step for event in run.events if event.HasField("step")] == list(range(200))
    again = _Watched(stub, _spec(checkpoint)).finished()
    assert _read(stub, again) == picture
    assert "Traceback" not in planner.log


def test_a_deadline_ends_the_run_and_frees_its_executor(
    stub: generation_pb2_grpc.GenerationServiceStub, checkpoint: Path
) -> None:
    call = stub.Generate(generation_pb2.GenerateRequest(spec=_spec(checkpoint, 1000)), timeout=2)
    name = next(call).event.generation
    with pytest.raises(grpc.RpcError) as refusal:
        list(call)
    assert refusal.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    request = generation_pb2.GetGenerationRequest(name=name)
    eventually(lambda: stub.GetGeneration(request, timeout=5).generation.state == FAILED, 5)
    ended = stub.GetGeneration(request, timeout=5).generation
    assert ended.failure.code == "DEADLINE_EXCEEDED"
    assert 0 < ended.failure.step < 1000
    assert _Watched(stub, _spec(checkpoint)).finished(20).state == SUCCEEDED


def test_the_command_line_sits_through_a_restart_of_the_planner(
    fleet: Fleet,
    stub: generation_pb2_grpc.GenerationServiceStub,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    command = ["generate", "--planner", fleet.planner.address, "--model", str(checkpoint)]
    command += ["--prompt", "x", "--steps", str(LONG), "--out", str(tmp_path / "x.png")]
    process = subprocess.Popen(
        [sys.executable, "-m", "planner", *command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    listing = generation_pb2.ListGenerationsRequest(states=[RUNNING])
    eventually(
        lambda: any(g.steps_done > 5 for g in stub.ListGenerations(listing, timeout=5).generations)
    )
    fleet.planner.kill()
    fleet.revive()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert (tmp_path / "x.png").is_file()


def test_sigterm_drains(
    planner: Service,
    executor: Service,
    stub: generation_pb2_grpc.GenerationServiceStub,
    checkpoint: Path,
) -> None:
    run = _Watched(stub, _spec(checkpoint, 200))
    eventually(lambda: run.steps() > 2)
    executor.process.send_signal(signal.SIGTERM)
    assert run.finished().state == SUCCEEDED
    assert executor.process.wait(20) == 0
    assert planner.stop() == 0
