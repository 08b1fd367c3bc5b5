"""What an executor answers itself: what it is, and whether it is well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from ditplan.v1 import executor_pb2
from ditplan.v1.executor_pb2_grpc import (
    ExecutorServiceServicer,
    add_ExecutorServiceServicer_to_server,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

LIVENESS = "liveness"
READINESS = ""
SERVICE = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name
THREADS = 8
STOP_SECONDS = 1.0


class CannotListenError(Exception):
    """The address is taken or is none of this machine's."""


class ExecutorServer:
    """Alive from `start`, ready from `ready` until `draining`."""

    def __init__(self) -> None:
        self._health = health.HealthServicer(
            experimental_non_blocking=True,
            experimental_thread_pool=ThreadPoolExecutor(1, thread_name_prefix="health"),
        )
        self._service = _ExecutorService()
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="server"),
            # Two executors must not share a port without anyone noticing.
            options=(("grpc.so_reuseport", 0),),
        )
        add_ExecutorServiceServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self._set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self._set(READINESS, health_pb2.HealthCheckResponse.NOT_SERVING)

    def start(self, address: str) -> int:
        """Listens on HOST:PORT and gives the port, which is chosen where 0 is asked for.

        Raises:
            CannotListenError: not possible there.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise CannotListenError(f"cannot listen on {address}")
        self._server.start()
        return port

    def ready(self, executor: executor_pb2.Executor) -> None:
        self._service.executor = executor
        self._set(READINESS, health_pb2.HealthCheckResponse.SERVING)

    def draining(self) -> None:
        self._set(READINESS, health_pb2.HealthCheckResponse.NOT_SERVING)

    def begin(self, generation: str, plan_id: str) -> None:
        """A run is executed from now on."""
        self._service.current = (generation, plan_id)

    def end(self) -> None:
        """No run is executed any more."""
        self._service.current = ("", "")

    def stop(self) -> None:
        self._health.enter_graceful_shutdown()
        self._server.stop(STOP_SECONDS).wait(2 * STOP_SECONDS)

    def _set(self, service: str, status: int) -> None:
        self._health.set(service, status)


class _ExecutorService(ExecutorServiceServicer):
    def __init__(self) -> None:
        self.executor: executor_pb2.Executor | None = None
        # Replaced as a whole, so that a reader never sees half of it.
        self.current = ("", "")

    def GetExecutor(
        self, request: executor_pb2.GetExecutorRequest, context: grpc.ServicerContext
    ) -> executor_pb2.GetExecutorResponse:
        if self.executor is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        generation, plan_id = self.current
        return executor_pb2.GetExecutorResponse(
            executor=self.executor, generation=generation, plan_id=plan_id
        )
