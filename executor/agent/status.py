"""The status that a call ended with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class Status:
    """``retry_later``: it says that another try could succeed after a while."""

    code: grpc.StatusCode
    details: str
    retry_later: bool = False

    @classmethod
    def of(cls, error: grpc.RpcError) -> Status:
        """Of an error that a client's call raised: those are calls, too."""
        call = cast(grpc.Call, error)
        return cls(call.code(), call.details() or "", _has_retry_info(call))

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details}"


def _has_retry_info(call: grpc.Call) -> bool:
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        # Details that belong to another status are nobody's promise.
        return False
    details = status.details if status is not None else ()
    return any(each.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for each in details)


# After these the lease may still be ours; after any other status it is not.
TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
