"""What a planner and its replicas have in common: who is let in, health, and the sockets."""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from ditplan.common import health
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from planner.access.gate import Gate
from planner.access.tls import check_security, server_credentials
from planner.access.tokens import TokenFile
from planner.listening.boundary import Boundary
from planner.listening.sockets import bind, health_server, server_options
from planner.settings import ListenerSettings


class Listener(ABC):
    """Serves at ``address`` within ``async with``, and answers health checks at ``health_address``.

    Raises SecurityError or TokensError where what the settings say of security cannot be followed.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self.address = ""
        self.health_address = ""
        security, limits = settings.security, settings.limits
        check_security(settings.listen, security)
        self._credentials = server_credentials(security)
        tokens = None
        if security.tokens is not None:
            tokens = TokenFile(security.tokens, certificates=security.client_ca is not None)
        self._listen, self._health_listen = settings.listen, security.health_listen
        self._message_bytes, self._grace = limits.message_bytes, settings.timing.stop_grace
        self._health = health.Health()
        self._gate = Gate(tokens, limits)
        self._boundary = Boundary(self._gate, settings.timing.stalled_seconds, limits.message_bytes)
        self._health_server = health_server((self._boundary,), self._health)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def start(self) -> None:
        """Binds the addresses and serves.

        Raises:
            ListenError: one is taken or makes no sense.
            CannotListenError: the same of the metrics' address.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Turns unready, ends the open calls and stops; also what has only half started."""

    def _make_server(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor], names: Sequence[str]
    ) -> grpc.aio.Server:
        """The server of the public socket: health and reflection, for services of these names."""
        self._server = grpc.aio.server(
            interceptors=(*interceptors, self._boundary),
            options=server_options(self._message_bytes),
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*names, health.SERVICE, reflection.SERVICE_NAME), self._server
        )
        return self._server

    def _bind(self) -> None:
        self.address = bind(self._server, self._listen, self._credentials)
        if self._health_listen is not None:
            self.health_address = bind(self._health_server, self._health_listen, None)

    async def _answer(self) -> None:
        await self._server.start()
        if self.health_address:
            await self._health_server.start()

    async def _hang_up(self) -> None:
        """Ends the open calls; health is still told."""
        await self._server.stop(self._grace)
        await self._boundary.drained(self._grace)

    async def _end_tasks(self) -> None:
        await self._health_server.stop(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background, until the stop."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_health(self, names: Iterable[str], *, serving: bool) -> None:
        for name in names:
            self._health.set(name, health.SERVING if serving else health.NOT_SERVING)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


async def until_signal(listener: Listener, announce: Callable[[str], None]) -> None:
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
        async with listener:
            announce(listener.address)
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
