"""What one stream after the other is given to send."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ditplan.dispatch.v1.dispatch_pb2 import Attach, Completion, RunLeaseRequest
from ditplan.v1.generation_pb2 import StepOutcome

from executor.agent.outbox import Outbox

COMPLETION = RunLeaseRequest(completion=Completion(total_seconds=1))


def _outbox(steps: int = 0) -> Outbox:
    outbox = Outbox(report_interval=0.05, heartbeat_interval=0.1)
    for step in range(steps):
        outbox.add(StepOutcome(step=step))
    return outbox


def _steps(message: RunLeaseRequest) -> list[int]:
    return [step.step for step in message.step_reports.steps]


def _opened(outbox: Outbox) -> Iterator[RunLeaseRequest]:
    messages = outbox.open(Attach())
    assert next(messages).HasField("attach")
    return messages


def _attached(outbox: Outbox) -> Iterator[RunLeaseRequest]:
    messages = _opened(outbox)
    outbox.resume_at(0)
    return messages


def test_what_gathers_between_two_reports_goes_out_together() -> None:
    outbox = _outbox(1)
    messages = _attached(outbox)
    assert _steps(next(messages)) == [0]
    outbox.add(StepOutcome(step=1))
    outbox.add(StepOutcome(step=2))
    began = time.monotonic()
    assert _steps(next(messages)) == [1, 2]
    assert time.monotonic() - began > 0.03


def test_the_final_message_comes_last_and_does_not_wait() -> None:
    outbox = _outbox(2)
    messages = _attached(outbox)
    next(messages)
    outbox.add(StepOutcome(step=2))
    outbox.finish(COMPLETION)
    began = time.monotonic()
    assert _steps(next(messages)) == [2]
    assert next(messages) == COMPLETION
    assert time.monotonic() - began < 0.03


def test_an_idle_stream_carries_heartbeats() -> None:
    messages = _attached(_outbox())
    assert next(messages).HasField("heartbeat")
    assert next(messages).HasField("heartbeat")


def test_a_stream_waits_for_the_planner_to_say_where_to_go_on() -> None:
    outbox = _outbox(4)
    next(_attached(outbox))
    outbox.finish(COMPLETION)
    messages = _opened(outbox)
    assert next(messages).HasField("heartbeat")
    outbox.resume_at(2)
    assert _steps(next(messages)) == [2, 3]
    assert next(messages) == COMPLETION


def test_a_stream_is_not_set_back_by_another_word_of_the_planner() -> None:
    outbox = _outbox(1)
    messages = _attached(outbox)
    assert _steps(next(messages)) == [0]
    outbox.resume_at(0)
    outbox.finish(COMPLETION)
    assert next(messages) == COMPLETION


def test_the_final_message_goes_out_again_on_the_next_stream() -> None:
    outbox = _outbox()
    outbox.finish(COMPLETION)
    assert next(_attached(outbox)) == COMPLETION
    messages = _attached(outbox)
    assert next(messages) == COMPLETION


def test_a_stream_ends_when_another_replaces_it() -> None:
    outbox = _outbox(1)
    old = _attached(outbox)
    new = _attached(outbox)
    assert list(old) == []
    assert _steps(next(new)) == [0]
    outbox.close()
    assert list(new) == []
