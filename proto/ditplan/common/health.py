"""Health checks over gRPC, the same for both services."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for the services whose status is set; all in one event loop.

    In the place of grpcio-health-checking's own, in which the end of one watch keeps the other
    watches of its service from ever hearing of a change.
    """

    def __init__(self) -> None:
        self._status: dict[str, int] = {}
        self._watches: set[asyncio.Event] = set()

    def set(self, service: str, status: int) -> None:
        """From now on, told to whoever watches."""
        self._status[service] = status
        for changed in self._watches:
            changed.set()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        status = self._status.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        changed = asyncio.Event()
        told = None
        self._watches.add(changed)
        try:
            while True:
                changed.clear()
                status = self._status.get(request.service, _UNKNOWN)
                if status != told:
                    told = status
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                await changed.wait()
        finally:
            self._watches.discard(changed)
