"""A planner that dispatches, two replicas before it and an executor, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from ditplan.v1 import generation_pb2, generation_pb2_grpc

from tests.e2e.processes import ENVIRONMENT, Fleet, Service, ditplan, eventually
from tests.e2e.test_top import terminal

MODEL = Path(__file__).parents[2] / "deploy" / "demo" / "model"
CONFIG = MODEL.parent / "cache.yaml"
LONG = 600
CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED
SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED
RUNNING = generation_pb2.GENERATION_STATE_RUNNING

Stub = generation_pb2_grpc.GenerationServiceStub


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        serve = ("-m", "planner", "serve", "planner")
        dispatch = fleet.start("dispatch", *serve, "--data", str(fleet.directory / "data"))
        for name in ("a", "b"):
            fleet.start(name, *serve, "--dispatch", dispatch.address)
        execute = ("-m", "executor", "--name", "one", "--planner", dispatch.address)
        fleet.start("executor", *execute, "--model", str(MODEL))
        yield fleet


@pytest.fixture
def fleet(started: Fleet) -> Fleet:
    started.revive()
    return started


@pytest.fixture
def stub(fleet: Fleet) -> Callable[[Service], Stub]:
    channels = {}

    def to(service: Service) -> Stub:
        if service.address not in channels:
            channels[service.address] = grpc.insecure_channel(
                service.address, (("grpc.max_reconnect_backoff_ms", 200),)
            )
        return Stub(channels[service.address])

    return to


def spec(steps: int, seed: int = 1) -> generation_pb2.GenerationSpec:
    return generation_pb2.GenerationSpec(
        model=str(MODEL),
        config=CONFIG.read_text(),
        prompt="a red star on a blue background",
        num_inference_steps=steps,
        seed=seed,
    )


def create(stub: Stub, work: generation_pb2.GenerationSpec) -> str:
    request = generation_pb2.CreateGenerationRequest(spec=work)
    return stub.CreateGeneration(request, timeout=20).generation.name


def get(stub: Stub, name: str) -> generation_pb2.Generation:
    request = generation_pb2.GetGenerationRequest(name=name)
    return stub.GetGeneration(request, timeout=20).generation


def test_work_of_a_killed_replica_is_cancelled_through_another(
    fleet: Fleet, stub: Callable[[Service], Stub]
) -> None:
    name = create(stub(fleet.a), spec(1000))
    events: list[generation_pb2.GenerationEvent] = []
    watch = generation_pb2.WatchGenerationRequest(name=name)
    call = stub(fleet.b).WatchGeneration(watch, timeout=60)

    def follow() -> None:
        for response in call:
            events.append(response.event)

    watching = threading.Thread(target=follow)
    watching.start()
    eventually(lambda: any(event.HasField("step") for event in list(events)))
    fleet.a.kill()
    eventually(lambda: sum(event.HasField("step") for event in list(events)) > 20)
    done = get(stub(fleet.b), name).steps_done
    cancel = generation_pb2.CancelGenerationRequest(name=name)
    began = time.monotonic()
    stub(fleet.b).CancelGeneration(cancel, timeout=5)
    watching.join(10)
    took = time.monotonic() - began
    ended = events[-1].finished
    assert ended.state == CANCELLED
    steps = [event.step.milliseconds for event in events if event.HasField("step")]
    # Reports come some ten times a second, and the cancel takes effect within a step.
    assert took < 0.5 + max(steps) / 1e3, took
    assert ended.failure.step - done < 0.5e3 / (sum(steps) / len(steps)) + 2
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_a_picture_is_the_same_through_a_replica(
    fleet: Fleet, stub: Callable[[Service], Stub], tmp_path: Path
) -> None:
    pictures = []
    for service in (fleet.dispatch, fleet.a):
        out = tmp_path / "x.png"
        ditplan(
            *("generate", "--planner", service.address, "--model", MODEL, "--config", CONFIG),
            *("--prompt", "a red star", "--steps", "12", "--seed", "4", "--out", out),
        )
        pictures.append(out.read_bytes())
        out.unlink()
    assert pictures[0] == pictures[1]


def test_every_event_comes_once_over_a_watch_that_changes_replicas(
    fleet: Fleet, stub: Callable[[Service], Stub]
) -> None:
    name = create(stub(fleet.b), spec(LONG))
    events: list[generation_pb2.GenerationEvent] = []
    hops = 0
    while not events or not events[-1].HasField("finished"):
        here = (fleet.a, fleet.b)[hops % 2]
        watch = generation_pb2.WatchGenerationRequest(
            name=name, after_sequence=events[-1].sequence if events else 0
        )
        call = stub(here).WatchGeneration(watch, timeout=60)
        seen = 0
        try:
            for response in call:
                events.append(response.event)
                seen += 1
                # The first time it leaves by itself, then its replica dies under it.
                if seen == 30 and hops == 0:
                    call.cancel()
                if seen == 30 and hops in (1, 2):
                    here.kill()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        fleet.revive()
        hops += 1
        assert hops < 20
    assert hops >= 4
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [e.step.step for e in events if e.HasField("step")] == list(range(LONG))
    direct = stub(fleet.dispatch).WatchGeneration(
        generation_pb2.WatchGenerationRequest(name=name), timeout=20
    )
    assert [response.event for response in direct] == events


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_command_line_sits_through_the_end_of_a_replica(
    fleet: Fleet, stub: Callable[[Service], Stub], tmp_path: Path, end: str
) -> None:
    command = ["generate", "--planner", fleet.a.address, "--model", str(MODEL), "--prompt", "x"]
    command += ["--steps", "300", "--out", str(tmp_path / "x.png")]
    process = subprocess.Popen(
        [sys.executable, "-m", "planner", *command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    listing = generation_pb2.ListGenerationsRequest()

    def running() -> bool:
        listed = stub(fleet.dispatch).ListGenerations(listing, timeout=5).generations
        return any(each.state == RUNNING and each.steps_done > 5 for each in listed)

    eventually(running)
    getattr(fleet.a, end)()
    fleet.revive()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert (tmp_path / "x.png").is_file()
    newest = stub(fleet.dispatch).ListGenerations(listing, timeout=5).generations[0]
    assert (newest.state, newest.attempt) == (SUCCEEDED, 1)


def test_an_interrupted_command_cancels_its_work_through_a_replica(
    fleet: Fleet, stub: Callable[[Service], Stub]
) -> None:
    request = generation_pb2.GenerateRequest(spec=spec(1000))
    call = stub(fleet.a).Generate(request, timeout=60)
    name = next(response.event.generation for response in call if response.event.HasField("step"))
    call.cancel()
    eventually(lambda: get(stub(fleet.b), name).state == CANCELLED, 5)
    assert fleet.executor.process.poll() is None


def test_doctor_and_top_look_through_a_replica(fleet: Fleet) -> None:
    done = ditplan("doctor", "--planner", fleet.a.address, "--model", MODEL, "--config", CONFIG)
    assert "can run on one" in done.stdout
    assert "1 connected" in done.stdout
    with terminal("top", "--planner", fleet.a.address) as top:
        eventually(lambda: "one" in top.shown)
    fleet.dispatch.kill()
    done = ditplan("doctor", "--planner", fleet.a.address, check=False)
    assert done.returncode == 1
    assert "cannot be reached from this one" in done.stdout
    assert "--dispatch" in done.stdout
