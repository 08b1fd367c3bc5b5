"""gRPC channels to a planner: by TLS or in plaintext, with the token in every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

LASTING = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A channel opened again must not find the connection that went dumb.
    ("grpc.use_local_subchannel_pool", 1),
    # A peer that vanished without a word is noticed in 15 s; the planner allows such pings.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Options of a service's channel to the planner, which is to be there as long as the service is."""
# A name that has moved to another host is looked up again soon, and not after half a minute.
_RESOLVING = ("grpc.dns_min_time_between_resolutions_ms", 1000)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM: whom to trust, and this side's own certificate for a planner that wants one.

    ``server_name``: whom the planner's certificate names, where that is not the host dialled.
    """

    roots: bytes
    key: bytes | None
    certificate: bytes | None
    server_name: str | None


def open_channel(
    address: str,
    options: Sequence[tuple[str, Any]],
    tls: Tls | None,
    token: Callable[[], str] | None,
) -> grpc.Channel:
    """Shows what ``token`` says at the time of each call."""
    if tls is None:
        channel = grpc.insecure_channel(address, (*options, _RESOLVING))
    else:
        channel = grpc.secure_channel(address, _credentials(tls), _secured(options, tls))
    return channel if token is None else grpc.intercept_channel(channel, _Bearer(token))


def open_aio_channel(
    address: str, options: Sequence[tuple[str, Any]], tls: Tls | None
) -> grpc.aio.Channel:
    """The same for asyncio, without a token: who calls sends it, as `bearer`."""
    if tls is None:
        return grpc.aio.insecure_channel(address, (*options, _RESOLVING))
    return grpc.aio.secure_channel(address, _credentials(tls), _secured(options, tls))


def bearer(token: str) -> tuple[str, str]:
    """The metadata that a token travels in."""
    return "authorization", f"Bearer {token}"


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.roots, tls.key, tls.certificate)


def _secured(options: Sequence[tuple[str, Any]], tls: Tls) -> Sequence[tuple[str, Any]]:
    name = tls.server_name
    named = () if name is None else (("grpc.ssl_target_name_override", name),)
    return (*options, _RESOLVING, *named)


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _CallDetailsWithToken(_CallDetails, grpc.ClientCallDetails):  # type: ignore[misc]
    pass


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Not call credentials: gRPC keeps those back in plaintext, also on this machine."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(
            _CallDetailsWithToken(
                details.method,
                details.timeout,
                (*(details.metadata or ()), bearer(self._token())),
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )

    intercept_unary_unary: Any = _call
    intercept_unary_stream: Any = _call
    intercept_stream_unary: Any = _call
    intercept_stream_stream: Any = _call
