"""The way to the planner that dispatches: one channel, whose calls are bytes."""

from __future__ import annotations

from typing import Any

import structlog
from ditplan.common.channel import LASTING, bearer
from ditplan.common.connection import Connection, ConnectionOptionsError

_OPTIONS = (
    # Both ends have their limits already.
    ("grpc.max_receive_message_length", -1),
    # Windows that grow with the connection would hold 4 MiB more for each reader that stops.
    ("grpc.http2.bdp_probe", 0),
    *LASTING,
)
_KINDS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}

log = structlog.get_logger(__name__)


class Link:
    def __init__(self, address: str, connection: Connection) -> None:
        """Raises `ConnectionOptionsError` where the planner cannot be dialled so."""
        self.address = address
        self._connection = connection
        self._open()
        self._token = connection.token_source()
        for file in connection.exposed():
            log.warning("secret_exposed", file=str(file), reason="everyone here can read it")

    def _open(self) -> None:
        self._stamp = self._connection.stamp()
        self._channel = self._connection.open_aio(self.address, _OPTIONS)
        self._callables: dict[str, Any] = {}

    def follow(self) -> None:
        """Opens the channel again where its files have changed; open calls go on."""
        if self._connection.stamp() == self._stamp:
            return
        try:
            self._open()
        except ConnectionOptionsError as error:
            # Half of a replacement, perhaps.
            log.error("certificates_kept", reason=str(error))

    def method(self, path: str, *, request_streams: bool = False, streams: bool = False) -> Any:
        """Calls this method with bytes, or an iterator of them, for bytes."""
        found = self._callables.get(path)
        if found is None:
            found = getattr(self._channel, _KINDS[request_streams, streams])(path)
            self._callables[path] = found
        return found

    def credentials(self) -> tuple[tuple[str, str], ...]:
        """The metadata of this side's own identity."""
        return () if self._token is None else (bearer(self._token()),)

    async def close(self) -> None:
        await self._channel.close()
