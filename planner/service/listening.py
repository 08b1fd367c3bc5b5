"""What every planner's sockets have in common, and how its process is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import grpc

from planner.settings import Limits

LIVENESS = "liveness"


class ListenError(Exception):
    """The address cannot be listened on."""


class MetricsListenError(ListenError):
    """The same of the metrics' address."""


class Listening(Protocol):
    """What serves at an address."""

    address: str


def server_options(limits: Limits) -> tuple[tuple[str, Any], ...]:
    return (
        ("grpc.max_receive_message_length", limits.message_bytes),
        # Else a second planner would share the port in silence.
        ("grpc.so_reuseport", 0),
        # Executors may ping idle connections this often.
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Peers that vanished without a word, or stopped, hold nothing for longer.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.ping_timeout_ms", 15_000),
    )


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """The address that is bound, with the port that was chosen. ListenError where it cannot be."""
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
