"""Metrics over plain HTTP, the same for both services."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


_IDLE_SECONDS = 10.0


class CannotListenError(Exception):
    """The address is taken or is none of this machine's."""


class MetricsPort:
    """Answers GET /metrics at HOST:PORT until it is closed, in threads of its own.

    ``address`` has the port that was chosen where 0 is asked for.
    """

    def __init__(self, listen: str, registry: CollectorRegistry) -> None:
        """Raises CannotListenError."""
        # Only here: whoever asks for no metrics does not wait for it.
        from prometheus_client import start_http_server

        host, _, port = listen.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.removeprefix("[").removesuffix("]"), registry
            )
        except (OSError, ValueError, OverflowError) as error:
            raise CannotListenError(f"cannot listen on {listen}: {error}") from None
        self._server.RequestHandlerClass = _impatient(self._server.RequestHandlerClass)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _impatient(handler: Any) -> Any:
    """A handler that ends connections on which nothing comes: each holds a thread."""

    class Handler(handler):  # type: ignore[misc]
        timeout = _IDLE_SECONDS

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

    return Handler
