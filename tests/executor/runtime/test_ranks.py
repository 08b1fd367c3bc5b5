"""Ranks that share runs, fail and come back: one launch of two ranks for all of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ditplan.dispatch.v1 import dispatch_pb2

from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.runtime.faulty import RELOAD
from tests.executor.runtime.launch import START_SECONDS, Launch, Work, shared_program

# Processes start and start anew, which takes ten times as long on a busy machine.
pytestmark = pytest.mark.timeout(300)

STEPS = "FFACACFC"
RUN_SECONDS = 30.0
# Death and exceptions are told within this, on an idle machine within a tenth.
TOLD_SECONDS = 2.0
RANK_TIMEOUT = 3.0


@pytest.fixture(scope="module")
def planner() -> Iterator[ScriptedPlanner]:
    planner = ScriptedPlanner()
    planner.start()
    yield planner
    planner.stop()


@pytest.fixture(scope="module")
def work(planner: ScriptedPlanner) -> Work:
    return Work(planner)


@pytest.fixture(scope="module")
def launch(
    tmp_path_factory: pytest.TempPathFactory, planner: ScriptedPlanner, checkpoint: Path
) -> Iterator[Launch]:
    launch = Launch(
        tmp_path_factory.mktemp("ranks"),
        planner.address,
        checkpoint,
        2,
        *("--rank-timeout", str(RANK_TIMEOUT), "--allow-reload"),
        restarts=4,
    )
    yield launch
    launch.kill()


@pytest.fixture(scope="module")
def picture(launch: Launch, work: Work) -> bytes:
    """What an undisturbed run draws."""
    job = work.offer(shared_program(STEPS, ulysses_size=2))
    assert job.over.wait(START_SECONDS), launch.text
    assert job.completion is not None, launch.text
    return job.artifacts["image.png"]


def _succeeds(work: Work, launch: Launch, picture: bytes) -> None:
    job = work.offer(shared_program(STEPS, ulysses_size=2))
    assert job.over.wait(START_SECONDS), launch.text
    assert job.failure is None, launch.text
    assert job.artifacts["image.png"] == picture


def _failed(job: Job, launch: Launch) -> dispatch_pb2.RunFailure:
    assert job.over.wait(RUN_SECONDS), launch.text
    assert job.failure is not None, launch.text
    return job.failure


def test_what_is_announced_and_what_meshes_run(
    launch: Launch, work: Work, planner: ScriptedPlanner, picture: bytes
) -> None:
    executor = planner.asked[-1].executor
    assert (executor.world_size, executor.tp_size) == (2, 1)
    ring = work.offer(shared_program(STEPS, ring_size=2))
    assert ring.over.wait(RUN_SECONDS)
    assert ring.completion is not None, launch.text
    assert {entry["rank"] for entry in launch.events("model_loaded")} == {0, 1}
    assert {entry["rank"] for entry in launch.events("run_finished")} == {0}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("raise", "INTERNAL", "KeyError: 'injected'"),
        ("oom", "RESOURCE_EXHAUSTED", "out of memory: CUDA out of memory: injected"),
    ],
)
def test_an_exception_on_one_rank_fails_the_run_and_the_ranks_meet_again(
    launch: Launch, work: Work, picture: bytes, rank: int, kind: str, code: str, words: str
) -> None:
    loads = len(launch.events("model_loaded"))
    fired = launch.arm(rank, kind, 3)
    failure = _failed(work.offer(shared_program(STEPS, ulysses_size=2)), launch)
    assert time.time() - json.loads(fired.read_text()) < TOLD_SECONDS
    assert (failure.code, failure.retryable) == (code, False)
    assert failure.message == f"rank {rank}: {words}"
    _succeeds(work, launch, picture)
    assert len(launch.events("model_loaded")) == loads, "the weights were loaded again"


def test_a_rank_with_another_plan_is_named(launch: Launch, work: Work, picture: bytes) -> None:
    launch.arm(1, "plan", 0)
    job = work.offer(shared_program(STEPS, ulysses_size=2))
    failure = _failed(job, launch)
    assert failure.code == "DATA_LOSS"
    assert failure.message.startswith("rank 1: the program has id ")
    assert not job.steps
    _succeeds(work, launch, picture)


def test_a_cancelled_run_stops_on_all_ranks(launch: Launch, work: Work, picture: bytes) -> None:
    def cancel(
        request: dispatch_pb2.RunLeaseRequest, number: int
    ) -> dispatch_pb2.RunLeaseResponse | None:
        if request.HasField("step_reports"):
            return dispatch_pb2.RunLeaseResponse(cancel=dispatch_pb2.Cancel(reason="enough"))
        return None

    job = work.offer(shared_program("F" * 500, ulysses_size=2), on_request=cancel)
    failure = _failed(job, launch)
    assert (failure.code, failure.message) == ("CANCELLED", "enough")
    assert 0 < len(job.steps) < 400
    errors = len(launch.events("rank_failed"))
    _succeeds(work, launch, picture)
    assert len(launch.events("rank_failed")) == errors


def test_ranks_load_anew_for_a_plan_of_another_placement(
    launch: Launch, work: Work, planner: ScriptedPlanner, picture: bytes
) -> None:
    message = shared_program(STEPS, tp_size=2)
    message.topology.extra_parallel_modules.append("text_encoder_2")
    message.placement.quant_type = "int8_weight_only"
    job = work.offer(message)
    assert job.over.wait(START_SECONDS), launch.text
    assert job.completion is not None, launch.text
    assert job.completion.reload_seconds > 0
    assert job.artifacts["image.png"] != picture
    impossible = shared_program(STEPS, ulysses_size=2)
    impossible.placement.quant_type = "float8_per_tensor"
    failure = _failed(work.offer(impossible), launch)
    assert failure.code == "FAILED_PRECONDITION"
    assert failure.message.startswith("float8_per_tensor needs a CUDA device")
    executor = planner.asked[-1].executor
    assert (executor.tp_size, executor.extra_parallel_modules) == (2, ["text_encoder_2"])
    assert executor.placement == message.placement
    again = work.offer(message)
    assert again.over.wait(RUN_SECONDS), launch.text
    assert again.artifacts["image.png"] == job.artifacts["image.png"]
    _succeeds(work, launch, picture)


def test_a_rank_that_dies_while_it_loads_anew_hands_the_run_back(
    launch: Launch, work: Work, picture: bytes
) -> None:
    message = shared_program(STEPS, ulysses_size=2)
    message.placement.quant_type = "int8_weight_only"
    launch.arm(1, "kill", RELOAD)
    failure = _failed(work.offer(message), launch)
    assert (failure.code, failure.retryable) == ("UNAVAILABLE", True)
    assert failure.message == "rank 1 ended"
    _succeeds(work, launch, picture)


def test_a_stopped_rank_hands_the_run_back_and_all_start_anew(
    launch: Launch, work: Work, picture: bytes
) -> None:
    fired = launch.arm(1, "stop", 4)
    failure = _failed(work.offer(shared_program(STEPS, ulysses_size=2)), launch)
    assert time.time() - json.loads(fired.read_text()) < RANK_TIMEOUT + TOLD_SECONDS
    assert (failure.code, failure.retryable) == ("UNAVAILABLE", True)
    assert failure.message == "rank 1 does not answer"
    _succeeds(work, launch, picture)


def test_a_lost_rank_0_ends_the_others(launch: Launch, work: Work, picture: bytes) -> None:
    launch.arm(0, "kill", 4)
    work.offer(shared_program(STEPS, ulysses_size=2))
    _succeeds(work, launch, picture)
    assert launch.events("rank_lost")[-1]["reason"] == "rank 0 ended"


def test_a_drain_ends_all_ranks_in_order(launch: Launch, work: Work, picture: bytes) -> None:
    job = work.offer(shared_program("F" * 100, ulysses_size=2))
    launch.await_that(lambda: job.steps)
    launch.stop()
    assert job.completion is not None, launch.text
    assert launch.events("drained")
