"""How work is asked for."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
import structlog
from ditplan.v1.executor_pb2 import Executor
from structlog.testing import capture_logs

from executor.agent.dialer import Dialer, RefusedByPlannerError
from executor.agent.telemetry.facts import Facts
from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.programs import program


def _dialer(planner: ScriptedPlanner, stop: threading.Event) -> Dialer:
    dialer = Dialer(planner.address, stop=stop, log=structlog.get_logger(), facts=Facts())
    dialer.announce(Executor(name="here"))
    return dialer


def test_it_keeps_asking_until_the_planner_is_there_and_logs_changes_only(
    planner: ScriptedPlanner,
) -> None:
    planner.stop()
    dialer = _dialer(planner, threading.Event())
    job = planner.offer(Job(program("F")))
    timer = threading.Timer(1.5, planner.start)
    timer.start()
    with capture_logs() as logs:
        work = dialer.acquire()
    timer.join()
    dialer.close()
    assert work is not None
    assert (work.lease, work.assignment) == (job.lease, job.assignment)
    assert [entry["event"] for entry in logs] == [
        "planner_unreachable",
        "planner_reached",
    ]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
    ],
)
def test_a_final_answer_ends_it(planner: ScriptedPlanner, code: grpc.StatusCode) -> None:
    planner.refuse_with = (code, "not you")
    dialer = _dialer(planner, threading.Event())
    with pytest.raises(RefusedByPlannerError, match=f"{code.name}: not you"):
        dialer.acquire()
    dialer.close()


def test_stop_ends_a_wait_at_once(planner: ScriptedPlanner) -> None:
    stop = threading.Event()
    dialer = _dialer(planner, stop)
    timer = threading.Timer(0.3, stop.set)
    began = time.monotonic()
    timer.start()
    assert dialer.acquire() is None
    assert time.monotonic() - began < 1.0
    timer.join()
    dialer.close()


def test_a_planner_that_does_not_wait_is_not_hammered(
    planner: ScriptedPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "_stopping", threading.Event())
    planner._stopping.set()
    stop = threading.Event()
    dialer = _dialer(planner, stop)
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    assert dialer.acquire() is None
    timer.join()
    dialer.close()
    assert len(planner.asked) < 10
