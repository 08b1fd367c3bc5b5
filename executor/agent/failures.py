"""What the planner is told about a run that did not succeed."""

from __future__ import annotations

import grpc
import torch
from ditplan.dispatch.v1.dispatch_pb2 import RunFailure

from executor.agent.lease import BrokenAssignmentError
from executor.codec import UnreadableMessageError
from executor.engine.run import ProgramMismatchError, UnusableSpecError

# How the allocator of the CPU words what CUDA's raises as OutOfMemoryError.
CPU_OUT_OF_MEMORY = "can't allocate memory"


class RefusedRunError(Exception):
    """This executor cannot run the plan; the message says what differs."""


class DamagedPlanError(Exception):
    """The program that arrived is not the one that its id names."""


class DeviceFailedError(Exception):
    """This process must end: only a new one can use the device again."""


def failure(code: grpc.StatusCode, message: str, *, retryable: bool = False) -> RunFailure:
    return RunFailure(code=code.name, message=message, retryable=retryable)


def describe(error: Exception) -> RunFailure:
    """The failure that an exception of a run amounts to."""
    if isinstance(error, RefusedRunError | ProgramMismatchError | UnreadableMessageError):
        return failure(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    if isinstance(error, UnusableSpecError):
        return failure(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    if isinstance(error, DamagedPlanError | BrokenAssignmentError):
        return failure(grpc.StatusCode.DATA_LOSS, str(error))
    if is_out_of_memory(error):
        return failure(grpc.StatusCode.RESOURCE_EXHAUSTED, f"out of memory: {error}")
    if is_device_failure(error):
        # Another executor's device is another one.
        message = f"the device failed: {_first_line(error)}"
        return failure(grpc.StatusCode.UNAVAILABLE, message, retryable=True)
    return failure(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and CPU_OUT_OF_MEMORY in str(error)
    )


def is_device_failure(error: Exception) -> bool:
    """Whether this process can do nothing more on its device: an error of CUDA stays."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
