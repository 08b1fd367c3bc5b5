"""What the planner is told about a run that did not succeed."""

from __future__ import annotations

import grpc
from ditplan.dispatch.v1.dispatch_pb2 import RunFailure

from executor.runtime import failures


def failure(code: grpc.StatusCode, message: str, *, retryable: bool = False) -> RunFailure:
    return RunFailure(code=code.name, message=message, retryable=retryable)


def describe(error: Exception) -> RunFailure:
    """The failure that an exception of a run amounts to."""
    found = failures.describe(error)
    return RunFailure(code=found.code, message=found.message, retryable=found.retryable)
