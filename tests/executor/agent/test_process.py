"""`python -m executor` as a real process."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from ditplan.v1.executor_pb2 import GetExecutorRequest
from ditplan.v1.executor_pb2_grpc import ExecutorServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from tests.executor.agent.process import ENVIRONMENT, REPOSITORY, WAIT, Process, command
from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.programs import program


@pytest.fixture
def process(planner: ScriptedPlanner, checkpoint: Path) -> Iterator[Process]:
    process = Process(
        "--planner", planner.address, "--model", str(checkpoint), "--name", "there",
        "--drain-seconds", "20",
    )  # fmt: skip
    yield process
    process.close()


def _started(planner: ScriptedPlanner, steps: int) -> Job:
    """A job of so many steps, some of which have been reported."""
    job = planner.offer(Job(program("F" * steps)))
    until = time.monotonic() + WAIT
    while not job.steps and time.monotonic() < until:
        time.sleep(0.01)
    assert job.steps
    return job


def test_a_drain_finishes_the_run_and_takes_no_other(
    process: Process, planner: ScriptedPlanner
) -> None:
    address = process.wait_for("listening")["address"]
    job = _started(planner, 300)
    waiting = planner.offer(Job(program("FC"), name="generations/2"))
    with grpc.insecure_channel(address) as channel:
        current = ExecutorServiceStub(channel).GetExecutor(GetExecutorRequest(), timeout=5)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        before = next(watch).status
        process.signal(signal.SIGTERM)
        after = next(watch).status
        was_over = job.over.is_set()
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    assert (before, after, was_over) == (serving, not_serving, False)
    assert job.over.wait(WAIT)
    assert process.exit_status() == 0
    assert (current.executor.name, current.generation) == ("there", job.name)
    assert job.completion is not None
    assert Image.open(io.BytesIO(job.artifacts["image.png"])).size == (32, 32)
    assert not waiting.attaches
    process.wait_for("drained")
    started = next(entry for entry in process.log if entry["event"] == "run_started")
    assert (started["executor"], started["generation"], started["epoch"]) == ("there", job.name, 1)
    assert started["plan_id"] == current.plan_id
    assert not any("red cat" in json.dumps(entry) for entry in process.log)


def test_an_idle_executor_drains_at_once(process: Process, planner: ScriptedPlanner) -> None:
    process.wait_for("planner_reached")
    # It has no leave to load anew for a plan, and goes on.
    message = program("FF")
    message.placement.quant_type = "int8_weight_only"
    job = planner.offer(Job(message))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert job.failure.code == "FAILED_PRECONDITION"
    assert job.failure.message == "the plan wants int8_weight_only, the executor holds float32"
    process.signal(signal.SIGINT)
    assert process.exit_status(5) == 0


def test_a_second_signal_ends_it_at_once(process: Process, planner: ScriptedPlanner) -> None:
    job = _started(planner, 5000)
    process.signal(signal.SIGTERM)
    time.sleep(0.3)
    process.signal(signal.SIGTERM)
    assert process.exit_status(2) == 128 + signal.SIGTERM
    assert job.completion is None


def test_a_drain_that_takes_too_long_hands_the_run_back(
    planner: ScriptedPlanner, checkpoint: Path
) -> None:
    process = Process(
        "--planner", planner.address, "--model", str(checkpoint), "--drain-seconds", "0.5"
    )
    try:
        job = _started(planner, 5000)
        process.signal(signal.SIGTERM)
        assert process.exit_status(5) == 0
    finally:
        process.close()
    assert job.failure is not None
    assert (job.failure.code, job.failure.retryable) == ("UNAVAILABLE", True)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=REPOSITORY,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--planner"),
        (["--planner", "here", "--model", "x"], "HOST:PORT"),
        (["--planner", "h:1", "--model", "x", "--listen", "h:99999"], "--listen"),
        (["--planner", "h:1", "--model", "x", "--dtype", "float8"], "float8"),
        (["--planner", "h:1", "--model", "x", "--drain-seconds", "-1"], "--drain-seconds"),
        (["--planner", "localhost:1", "--model", "/nowhere"], "error: /nowhere: no such directory"),
    ],
)
def test_misuse_is_one_clear_line(arguments: list[str], words: str) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--group-size", "2"], {"WORLD_SIZE": "3", "RANK": "0"}, "3 ranks do not divide"),
        ([], {"WORLD_SIZE": "2"}, "RANK is None"),
        ([], {"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, of 2 ranks"),
        ([], {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        (["--tp-size", "2"], {"WORLD_SIZE": "3", "RANK": "0"}, "2 does not divide the 3 ranks"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(
    arguments: list[str], environment: dict[str, str], words: str
) -> None:
    result = _run("--planner", "h:1", "--model", "x", *arguments, **environment)
    assert result.returncode == 2
    assert words in result.stderr


def test_a_final_refusal_of_the_planner_ends_it(planner: ScriptedPlanner, checkpoint: Path) -> None:
    planner.refuse_with = (grpc.StatusCode.UNAUTHENTICATED, "no token")
    result = _run("--planner", planner.address, "--model", str(checkpoint))
    assert result.returncode == 1
    assert "UNAUTHENTICATED: no token" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_help_imports_nothing_heavy() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "executor", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert result.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"torch", "diffusers", "grpc", "numpy"}
