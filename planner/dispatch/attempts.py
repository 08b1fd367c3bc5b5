"""What becomes of work whose executor gave it up or was lost: pure."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from ditplan.v1 import generation_pb2

from planner.store.values import Ending, Lease, State


@dataclass(frozen=True, slots=True)
class QueueAgain:
    reason: str


def after_loss(lease: Lease, *, max_attempts: int, another_executor: bool) -> QueueAgain | Ending:
    """The executor is gone without a word."""
    lost = f"executor {lease.executor.name} was lost at step {lease.steps_done}"
    if lease.cancel_reason is not None:
        return cancelled(lease.cancel_reason, lease.steps_done)
    if not another_executor:
        why = "no other connected executor can take the work"
    elif lease.epoch >= max_attempts:
        why = f"this was attempt {lease.epoch} of at most {max_attempts}"
    else:
        return QueueAgain(lost)
    message = f"{lost} of {lease.step_count}; {why}"
    return failed(grpc.StatusCode.UNAVAILABLE.name, message, lease.steps_done)


def after_failure(
    lease: Lease, code: str, message: str, *, retryable: bool, max_attempts: int
) -> QueueAgain | Ending:
    """The executor reported that it could not finish the run."""
    if lease.cancel_reason is not None:
        return cancelled(lease.cancel_reason, lease.steps_done)
    known = code if code in grpc.StatusCode.__members__ and code != "OK" else "INTERNAL"
    if retryable and lease.epoch < max_attempts:
        return QueueAgain(f"executor {lease.executor.name} gave up: {message}")
    return failed(known, message, lease.steps_done)


def failed(code: str, message: str, step: int | None = None) -> Ending:
    failure = generation_pb2.Failure(code=code, message=message, step=step)
    return Ending(State.FAILED, failure=failure)


def cancelled(reason: str, step: int | None = None) -> Ending:
    failure = generation_pb2.Failure(code=grpc.StatusCode.CANCELLED.name, message=reason, step=step)
    return Ending(State.CANCELLED, failure=failure)
