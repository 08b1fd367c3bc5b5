"""The sockets that are listened on, and what gRPC is told of who dials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from ditplan.common import health
from grpc_health.v1 import health_pb2_grpc

LIVENESS = "liveness"
# Else a second planner would share the port in silence.
_ALONE = ("grpc.so_reuseport", 0)


class ListenError(Exception):
    """The address cannot be listened on."""


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
