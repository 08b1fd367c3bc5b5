"""The gRPC channel of a connection: its TLS, and the token with every call."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from ditplan.common.connection import TOKEN_VARIABLE, Connection, ConnectionOptionsError
from ditplan.common.secret_files import Stamp, stamp

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
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")


def open_channel(
    connection: Connection, address: str, options: Sequence[tuple[str, Any]]
) -> grpc.Channel:
    """Raises ConnectionOptionsError where a file cannot be used."""
    options = _complete(connection, options)
    if connection.ca is None:
        channel = grpc.insecure_channel(address, options)
    else:
        channel = grpc.secure_channel(address, _tls(connection), options)
    token = token_of(connection)
    return channel if token is None else grpc.intercept_channel(channel, _Bearer(token))


def open_aio_channel(
    connection: Connection, address: str, options: Sequence[tuple[str, Any]]
) -> grpc.aio.Channel:
    """The same for asyncio, without the token: its caller sends that of `token_of`."""
    options = _complete(connection, options)
    if connection.ca is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, _tls(connection), options)


def bearer(token: str) -> tuple[str, str]:
    """The metadata that a token travels in."""
    return "authorization", f"Bearer {token}"


def _complete(
    connection: Connection, options: Sequence[tuple[str, Any]]
) -> Sequence[tuple[str, Any]]:
    options = (*options, _RESOLVING)
    if connection.ca is None or connection.server_name is None:
        return options
    return (*options, ("grpc.ssl_target_name_override", connection.server_name))


def _tls(connection: Connection) -> grpc.ChannelCredentials:
    roots, key, certificate = (
        None if file is None else _read(option, file)
        for option, file in (
            ("--tls-ca", connection.ca),
            ("--tls-key", connection.key),
            ("--tls-cert", connection.certificate),
        )
    )
    return grpc.ssl_channel_credentials(roots, key, certificate)


def token_of(connection: Connection) -> Callable[[], str] | None:
    """What says the token of now; None where there is none.

    Raises ConnectionOptionsError where there is something else.
    """
    if connection.token_file is not None:
        return _TokenFile(connection.token_file).token
    if not connection.token:
        return None
    token = _checked(connection.token, TOKEN_VARIABLE)
    return lambda: token


def _read(option: str, file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConnectionOptionsError(f"{option} {file}: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ConnectionOptionsError(f"{option} {file}: holds no PEM")
    return data


def _checked(token: str, where: str) -> str:
    """The token, of which no message may hold a part."""
    token = token.strip()
    if _TOKEN.fullmatch(token) is None:
        raise ConnectionOptionsError(f"{where} holds no token: 16 to 512 letters, digits or ._~+/-")
    return token


class _TokenFile:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: Stamp | None = None
        try:
            self._read()
        except OSError as error:
            raise ConnectionOptionsError(f"--token-file {file}: {error.strerror}") from None

    def token(self) -> str:
        """What the file holds; while it is being replaced, what it held."""
        with contextlib.suppress(OSError, ConnectionOptionsError):
            if stamp(self._file) != self._stamp:
                self._read()
        return self._held

    def _read(self) -> None:
        now = stamp(self._file)
        text = self._file.read_text(encoding="utf-8", errors="replace")
        self._held = _checked(text, f"--token-file {self._file}")
        self._stamp = now


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
