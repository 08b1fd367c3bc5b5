"""What becomes of work whose executor is gone, decided without a clock or a store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ditplan.v1 import executor_pb2

from planner.dispatch.attempts import Requeue, after_failure, after_loss
from planner.store.values import Ending, Lease, State

LEASE = Lease(
    generation="g",
    epoch=1,
    executor=executor_pb2.Executor(name="exec-1"),
    expires_at=0.0,
    cancel_code=None,
    cancel_reason=None,
    requirement="r",
    plan_id="p",
    steps_done=7,
    step_count=28,
    traceparent="",
)
LAST = replace(LEASE, epoch=3)
CANCELLING = replace(LEASE, cancel_code="CANCELLED", cancel_reason="a client cancelled it")


def test_lost_work_is_queued_again_where_another_can_take_it() -> None:
    outcome = after_loss(LEASE, max_attempts=3, another_executor=True)
    assert outcome == Requeue("executor exec-1 was lost at step 7")


@pytest.mark.parametrize(
    ("lease", "another", "why"),
    [(LEASE, False, "no other connected executor"), (LAST, True, "attempt 3 of at most 3")],
)
def test_lost_work_fails_where_it_cannot_go_on(lease: Lease, another: bool, why: str) -> None:
    outcome = after_loss(lease, max_attempts=3, another_executor=another)
    assert isinstance(outcome, Ending)
    assert outcome.failure is not None
    assert (outcome.state, outcome.failure.code) == (State.FAILED, "UNAVAILABLE")
    assert outcome.failure.step == 7
    assert outcome.failure.message.startswith("executor exec-1 was lost at step 7 of 28; ")
    assert why in outcome.failure.message


def test_lost_work_that_was_being_cancelled_is_cancelled() -> None:
    outcome = after_loss(CANCELLING, max_attempts=3, another_executor=True)
    assert isinstance(outcome, Ending)
    assert outcome.state is State.CANCELLED


@pytest.mark.parametrize(
    ("lease", "retryable", "code", "state", "reported"),
    [
        (LEASE, True, "UNAVAILABLE", State.QUEUED, None),
        (LAST, True, "UNAVAILABLE", State.FAILED, "UNAVAILABLE"),
        (LEASE, False, "RESOURCE_EXHAUSTED", State.FAILED, "RESOURCE_EXHAUSTED"),
        (LEASE, False, "no such code", State.FAILED, "INTERNAL"),
        (LEASE, False, "OK", State.FAILED, "INTERNAL"),
        (CANCELLING, True, "CANCELLED", State.CANCELLED, "CANCELLED"),
        (CANCELLING, False, "INTERNAL", State.CANCELLED, "CANCELLED"),
    ],
)
def test_a_reported_failure(
    lease: Lease, retryable: bool, code: str, state: State, reported: str | None
) -> None:
    outcome = after_failure(lease, code, "why", retryable=retryable, max_attempts=3)
    if isinstance(outcome, Requeue):
        assert state is State.QUEUED
        assert "why" in outcome.reason
    else:
        assert outcome.failure is not None
        assert (outcome.state, outcome.failure.code) == (state, reported)


def test_what_is_handed_back_was_no_attempt() -> None:
    for lease in (LEASE, LAST):
        outcome = after_failure(
            lease, "UNAVAILABLE", "bye", retryable=True, handed_back=True, max_attempts=3
        )
        assert outcome == Requeue("executor exec-1 ends: bye", handed_back=True)
    # The third lease, of which two were handed back, is the first attempt.
    again = after_loss(replace(LAST, handed_back=2), max_attempts=3, another_executor=True)
    assert isinstance(again, Requeue)
    last = after_loss(replace(LAST, epoch=5, handed_back=2), max_attempts=3, another_executor=True)
    assert isinstance(last, Ending)
    assert last.failure is not None
    assert "attempt 3 of at most 3" in last.failure.message
