"""The status that a call ended with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import grpc


@dataclass(frozen=True, slots=True)
class Status:
    code: grpc.StatusCode
    details: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Status:
        """Of an error that a client's call raised: those are calls, too."""
        call = cast(grpc.Call, error)
        return cls(call.code(), call.details() or "")

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details}"


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
