"""The sockets that are listened on: what answers there, and what gRPC is told of who dials.

And how a process that listens is told to end.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from ditplan.common import health
from ditplan.dispatch.v1 import dispatch_pb2, dispatch_pb2_grpc, front_pb2, front_pb2_grpc
from ditplan.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    monitor_pb2,
    monitor_pb2_grpc,
    planner_pb2,
    planner_pb2_grpc,
)
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVICE_NAMES = (
    planner_pb2.DESCRIPTOR.services_by_name["PlannerService"].full_name,
    generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
    dispatch_pb2.DESCRIPTOR.services_by_name["DispatchService"].full_name,
    front_pb2.DESCRIPTOR.services_by_name["FrontService"].full_name,
    monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"].full_name,
)
LIVENESS = "liveness"
# Else a second planner would share the port in silence.
_ALONE = ("grpc.so_reuseport", 0)


class ListenError(Exception):
    """The address cannot be listened on."""


class MetricsListenError(ListenError):
    """The same of the metrics' address."""


class Listening(Protocol):
    """What serves at an address."""

    address: str


@dataclass(frozen=True, slots=True)
class Services:
    """What clients, executors and replicas call."""

    planner: planner_pb2_grpc.PlannerServiceServicer
    generations: generation_pb2_grpc.GenerationServiceServicer
    dispatch: dispatch_pb2_grpc.DispatchServiceServicer
    front: front_pb2_grpc.FrontServiceServicer
    monitor: monitor_pb2_grpc.MonitorServiceServicer
    health: health.Health


def server_options(message_bytes: int) -> tuple[tuple[str, Any], ...]:
    """Takes messages of twice ``message_bytes``: too large, but not absurd, has its refusal."""
    return (
        ("grpc.max_receive_message_length", 2 * message_bytes),
        _ALONE,
        # Executors may ping idle connections this often.
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Peers that vanished without a word, or stopped, hold nothing for longer.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.ping_timeout_ms", 15_000),
    )


def public_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], message_bytes: int, services: Services
) -> grpc.aio.Server:
    """Answers for the services, and for what they are (reflection)."""
    server = grpc.aio.server(interceptors=interceptors, options=server_options(message_bytes))
    planner_pb2_grpc.add_PlannerServiceServicer_to_server(services.planner, server)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(services.generations, server)
    dispatch_pb2_grpc.add_DispatchServiceServicer_to_server(services.dispatch, server)
    front_pb2_grpc.add_FrontServiceServicer_to_server(services.front, server)
    monitor_pb2_grpc.add_MonitorServiceServicer_to_server(services.monitor, server)
    health_pb2_grpc.add_HealthServicer_to_server(services.health, server)
    reflection.enable_server_reflection(
        (*SERVICE_NAMES, health.SERVICE, reflection.SERVICE_NAME), server
    )
    return server


def health_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], answers: health.Health
) -> grpc.aio.Server:
    """Answers health checks, and nothing else."""
    server = grpc.aio.server(interceptors=interceptors, options=(_ALONE,))
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    return server


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """The address that is bound, with the port that was chosen.

    Raises:
        ListenError: it is taken, or makes no sense.
    """
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {listen}: {error}") from None
    # A socket file has no port: the address is the one asked for.
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


async def until_signal(
    planner: AbstractAsyncContextManager[Listening], announce: Callable[[str], None]
) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once.

    ``announce`` is called with the bound address.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        async with planner as serving:
            announce(serving.address)
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
