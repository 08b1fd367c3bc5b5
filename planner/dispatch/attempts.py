"""What becomes of work whose executor gave it up or was lost: pure."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from ditplan.v1 import generation_pb2

from planner.store.values import Ending, Lease, State

CANCELLED = grpc.StatusCode.CANCELLED.name
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.name


@dataclass(frozen=True, slots=True)
class Requeue:
    reason: str
    handed_back: bool = False


def after_loss(lease: Lease, *, max_attempts: int, another_executor: bool) -> Requeue | Ending:
    """The executor is gone without a word."""
    lost = f"executor {lease.executor.name} was lost at step {lease.steps_done}"
    if lease.cancel_reason is not None:
        return stopped(lease, lease.cancel_reason)
    if not another_executor:
        why = "no other connected executor can take the work"
    elif lease.attempt >= max_attempts:
        why = f"this was attempt {lease.attempt} of at most {max_attempts}"
    else:
        return Requeue(lost)
    message = f"{lost} of {lease.step_count}; {why}"
    return failed(grpc.StatusCode.UNAVAILABLE.name, message, lease.steps_done)


def after_failure(
    lease: Lease,
    code: str,
    message: str,
    *,
    retryable: bool,
    max_attempts: int,
    handed_back: bool = False,
) -> Requeue | Ending:
    """The executor reported that it could not finish the run.

    ``handed_back``: because it is to end itself, however often others were.
    """
    if lease.cancel_reason is not None:
        return stopped(lease, lease.cancel_reason)
    if handed_back:
        return Requeue(f"executor {lease.executor.name} ends: {message}", handed_back=True)
    known = code if code in grpc.StatusCode.__members__ and code != "OK" else "INTERNAL"
    if retryable and lease.attempt < max_attempts:
        return Requeue(f"executor {lease.executor.name} gave up: {message}")
    return failed(known, message, lease.steps_done)


def after_completion(lease: Lease, record: generation_pb2.Record) -> Ending:
    """The executor finished the run: in vain where its deadline had passed before."""
    if lease.cancel_reason is not None and lease.cancel_code == DEADLINE_EXCEEDED:
        return stopped(lease, lease.cancel_reason)
    return Ending(State.SUCCEEDED, record=record)


def stopped(lease: Lease, reason: str) -> Ending:
    """The executor was told to stop, and has."""
    return ended(lease.cancel_code or CANCELLED, reason, lease.steps_done)


def ended(code: str, reason: str, step: int | None = None) -> Ending:
    """CANCELLED by a client, or FAILED with DEADLINE_EXCEEDED."""
    return cancelled(reason, step) if code == CANCELLED else failed(code, reason, step)


def failed(code: str, message: str, step: int | None = None) -> Ending:
    failure = generation_pb2.Failure(code=code, message=message, step=step)
    return Ending(State.FAILED, failure=failure)


def cancelled(reason: str, step: int | None = None) -> Ending:
    failure = generation_pb2.Failure(code=CANCELLED, message=reason, step=step)
    return Ending(State.CANCELLED, failure=failure)
