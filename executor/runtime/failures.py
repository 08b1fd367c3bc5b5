"""What a run that did not succeed amounts to, on whichever rank it failed."""

from __future__ import annotations

import torch
import torch.distributed as dist
from ditplan.runtime.v1.runtime_pb2 import Failure

from executor.codec import UnreadableMessageError
from executor.engine.run import ProgramMismatchError, UnusableSpecError
from executor.errors import PlacementError

# How the allocator of the CPU words what CUDA's raises as OutOfMemoryError.
CPU_OUT_OF_MEMORY = "can't allocate memory"
# Where gloo's errors come from: they have no type of their own.
GLOO = "/gloo/"


class RefusedRunError(Exception):
    """This executor cannot run the plan; the message says what differs."""


class DamagedPlanError(Exception):
    """The program that arrived is not the one that its id names."""


class RunFailedError(Exception):
    """The run failed on a rank, for the reason that the failure gives."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ExecutorFailedError(Exception):
    """This process can run nothing more and must end; the message says why."""


def describe(error: Exception) -> Failure:
    """The failure that an exception of a run amounts to."""
    if isinstance(error, RunFailedError):
        return error.failure
    if isinstance(
        error,
        RefusedRunError | ProgramMismatchError | UnreadableMessageError | PlacementError,
    ):
        return Failure(code="FAILED_PRECONDITION", message=str(error))
    if isinstance(error, UnusableSpecError):
        return Failure(code="INVALID_ARGUMENT", message=str(error))
    if isinstance(error, DamagedPlanError):
        return Failure(code="DATA_LOSS", message=str(error))
    if is_out_of_memory(error):
        return Failure(code="RESOURCE_EXHAUSTED", message=f"out of memory: {error}")
    if is_device_failure(error):
        # Another executor's device is another one.
        return Failure(
            code="UNAVAILABLE",
            message=f"the device failed: {_first_line(error)}",
            retryable=True,
            device_failed=True,
        )
    if is_broken_collective(error):
        return Failure(
            code="UNAVAILABLE",
            message=f"lost touch with the other ranks: {_first_line(error)}",
            retryable=True,
            by_peer=True,
        )
    return Failure(code="INTERNAL", message=f"{type(error).__name__}: {error}")


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and CPU_OUT_OF_MEMORY in str(error)
    )


def is_device_failure(error: Exception) -> bool:
    """Whether this process can do nothing more on its device: an error of CUDA stays."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def is_broken_collective(error: Exception) -> bool:
    """Whether another rank left: those that waited for it get an error, too."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and GLOO in str(error)
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
