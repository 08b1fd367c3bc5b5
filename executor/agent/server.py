"""What an executor answers itself: what it is, and whether it is well."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import grpc
from ditplan.common import health
from ditplan.v1 import executor_pb2
from ditplan.v1.executor_pb2_grpc import (
    ExecutorServiceServicer,
    add_ExecutorServiceServicer_to_server,
)
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

LIVENESS = "liveness"
READINESS = ""
SERVICE = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name
GRACE_SECONDS = 0.2
CALL_SECONDS = 5.0

T = TypeVar("T")


class CannotListenError(Exception):
    """The address is taken or is none of this machine's."""


class ExecutorServer:
    """Alive from `start`, ready from `ready` until `not_ready`; `stop` ends it.

    It has an event loop in a thread of its own: open health watches and reflection streams take
    no thread each, and a slow reader holds up nobody. (With the thread-based server, setting a
    health status can deadlock with a watch that is being cancelled.)
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._service = _ExecutorService()
        self._health = health.Health()
        self._server: grpc.aio.Server | None = None

    def start(self, address: str, *, health_only: bool = False) -> int:
        """Listens on HOST:PORT and gives the port, which is chosen where 0 is asked for.

        ``health_only``: tells nobody what it is and what it runs.

        Raises:
            CannotListenError: not possible there.
        """
        self._thread.start()
        return self._call(self._start(address, health_only))

    def describe(
        self, executor: executor_pb2.Executor, layers: Sequence[executor_pb2.QuantizedLayers] = ()
    ) -> None:
        """What GetExecutor answers from now on."""
        self._service.described = executor_pb2.GetExecutorResponse(executor=executor, layers=layers)

    def ready(self) -> None:
        """Work can be taken."""
        self._call(self._set_readiness(health.SERVING))

    def not_ready(self) -> None:
        """No work is taken, for a while or for good. Does not wait."""
        self._loop.call_soon_threadsafe(self._health.set, READINESS, health.NOT_SERVING)

    def begin(self, generation: str, plan_id: str) -> None:
        """A run is executed from now on."""
        self._service.current = (generation, plan_id)

    def end(self) -> None:
        """No run is executed any more."""
        self._service.current = ("", "")

    def stop(self) -> None:
        """Ends the thread; does nothing where it was never started."""
        if self._thread.is_alive():
            self._call(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_SECONDS)
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_SECONDS)

    async def _set_readiness(self, status: int) -> None:
        self._health.set(READINESS, status)

    async def _start(self, address: str, health_only: bool) -> int:
        # Two executors must not share a port without anyone noticing.
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if not health_only:
            add_ExecutorServiceServicer_to_server(self._service, self._server)
            reflection.enable_server_reflection(
                (SERVICE, health.SERVICE, reflection.SERVICE_NAME), self._server
            )
        self._health.set(LIVENESS, health.SERVING)
        self._health.set(READINESS, health.NOT_SERVING)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise CannotListenError(f"cannot listen on {address}") from None
        await self._server.start()
        return port

    async def _stop(self) -> None:
        assert self._server is not None
        for service in (LIVENESS, READINESS):
            self._health.set(service, health.NOT_SERVING)
        await self._server.stop(GRACE_SECONDS)
        # Handlers of streams may still be on their way out.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _ExecutorService(ExecutorServiceServicer):
    def __init__(self) -> None:
        self.described: executor_pb2.GetExecutorResponse | None = None
        # Replaced as a whole, so that a reader never sees half of it.
        self.current = ("", "")

    async def GetExecutor(
        self,
        request: executor_pb2.GetExecutorRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> executor_pb2.GetExecutorResponse:
        if self.described is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        generation, plan_id = self.current
        response = executor_pb2.GetExecutorResponse(generation=generation, plan_id=plan_id)
        response.MergeFrom(self.described)
        return response
