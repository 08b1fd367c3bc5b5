"""What becomes of a run when the stream to the planner, or the planner, is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from ditplan.dispatch.v1.dispatch_pb2 import Cancel, RunLeaseRequest, RunLeaseResponse
from structlog.testing import capture_logs

from tests.executor.agent.in_process import Agent, SlowSteps
from tests.executor.agent.scripted_planner import BreakStream, Job, ScriptedPlanner, default_spec
from tests.executor.programs import program

WAIT = 30


def eventually(condition: Callable[[], bool], seconds: float = WAIT) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


def _break_each(
    every: int, code: grpc.StatusCode
) -> Callable[[RunLeaseRequest, int], RunLeaseResponse | None]:
    """Breaks every stream at its so-manieth message, which is then lost."""

    def on_request(request: RunLeaseRequest, number: int) -> RunLeaseResponse | None:
        if number == every:
            raise BreakStream(code)
        return None

    return on_request


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_a_dropped_stream_loses_and_repeats_no_step(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps, code: grpc.StatusCode
) -> None:
    slow_steps.seconds = 0.02
    job = planner.offer(Job(program("F" * 50), on_request=_break_each(3, code)))
    assert job.over.wait(WAIT)
    assert job.completion is not None
    assert len(job.attaches) >= 3
    assert [step.step for step in job.steps] == list(range(50))
    assert len(slow_steps.began) == 50


def test_a_first_stream_lost_before_its_answer_holds_up_nothing(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.02
    broken_at: list[float] = []

    def break_off() -> Iterator[RunLeaseResponse]:
        if not broken_at:
            assert eventually(lambda: len(slow_steps.began) > 2)
            broken_at.append(time.monotonic())
            raise RuntimeError("the planner breaks off")
        yield from ()

    job = planner.offer(Job(program("F" * 20), before_attached=break_off))
    assert job.over.wait(WAIT)
    assert job.completion is not None
    assert len(job.attaches) == 2
    assert [step.step for step in job.steps] == list(range(20))


def test_a_cancel_before_anything_is_reported_is_answered(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.1
    cancel = RunLeaseResponse(cancel=Cancel(reason="changed my mind"))
    job = planner.offer(Job(program("F" * 20), before_attached=lambda: [cancel]))
    assert job.over.wait(WAIT)
    assert job.failure is not None
    assert (job.failure.code, job.failure.message) == ("CANCELLED", "changed my mind")
    assert len(slow_steps.began) < 5


def test_a_lease_that_is_over_when_its_run_begins_ends_it(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.1
    job = Job(program("F" * 50))
    job.over.set()
    planner.offer(job)
    next_job = planner.offer(Job(program("FC"), name="generations/2"))
    assert next_job.over.wait(WAIT)
    assert next_job.completion is not None
    assert (job.completion, job.failure, job.artifacts) == (None, None, {})
    assert len(slow_steps.began) < 10


def test_a_stale_lease_ends_the_run_and_nothing_is_told_of_it(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.05
    broken_at: list[float] = []

    def fence(request: RunLeaseRequest, number: int) -> None:
        if request.HasField("step_reports"):
            broken_at.append(time.monotonic())
            raise BreakStream(grpc.StatusCode.ABORTED, "epoch 2 is running")

    with capture_logs() as logs:
        job = planner.offer(Job(program("F" * 100), on_request=fence))
        assert eventually(lambda: bool(broken_at))
        next_job = planner.offer(Job(program("FC"), name="generations/2"))
        assert next_job.over.wait(WAIT)
    assert next_job.completion is not None
    assert (job.completion, job.failure, job.artifacts) == (None, None, {})
    assert len(job.attaches) == 1
    assert sum(began > broken_at[0] for began in slow_steps.began[:-2]) <= 2
    lost = [entry for entry in logs if entry["event"] == "lease_lost"]
    assert len(lost) == 1
    assert "epoch 2" in lost[0]["reason"]


def test_denoising_goes_on_while_the_planner_restarts(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.05
    spec = default_spec(save_latents=True)
    job = planner.offer(Job(program("F" * 40), spec))
    assert eventually(lambda: len(job.steps) > 3)
    with capture_logs() as logs:
        planner.stop()
        held = len(job.steps)
        time.sleep(0.7)
        assert len(slow_steps.began) > held + 8
        planner.start()
        assert job.over.wait(WAIT)
    assert job.completion is not None
    assert [step.step for step in job.steps] == list(range(40))
    assert len(slow_steps.began) == 40
    events = [entry["event"] for entry in logs]
    assert events.count("stream_lost") == 1
    assert events.count("stream_resumed") == 1


def test_the_outcome_waits_for_the_planner_to_come_back(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    slow_steps.seconds = 0.05
    job = planner.offer(Job(program("F" * 10)))
    assert eventually(lambda: len(job.steps) > 2)
    planner.stop()
    assert eventually(lambda: len(slow_steps.began) == 10)
    time.sleep(0.5)
    planner.start()
    assert job.over.wait(WAIT)
    assert job.completion is not None
    assert [step.step for step in job.steps] == list(range(10))
    assert "image.png" in job.artifacts


def test_the_outcome_is_given_up_after_a_while(
    agent: Agent, planner: ScriptedPlanner, slow_steps: SlowSteps
) -> None:
    agent.runner._delivery_seconds = 0.5
    slow_steps.seconds = 0.05
    with capture_logs() as logs:
        job = planner.offer(Job(program("F" * 5)))
        assert eventually(lambda: bool(job.steps))
        planner.stop()
        gave_up = eventually(lambda: any("not_delivered" in entry["event"] for entry in logs), 10)
    planner.start()
    assert gave_up
    assert job.completion is None
    next_job = planner.offer(Job(program("FC"), name="generations/2"))
    assert next_job.over.wait(WAIT)
    assert next_job.completion is not None
