"""Puts a replica's services on a socket, and takes them off it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import grpc
import structlog
from ditplan.common import health
from ditplan.common.connection import ConnectionOptionsError
from ditplan.common.metrics_port import CannotListenError
from ditplan.v1 import generation_pb2, monitor_pb2, planner_pb2, planner_pb2_grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from planner.access.gate import Gate
from planner.access.tls import SecurityError, check_security, server_credentials
from planner.access.tokens import TokenFile, TokensError
from planner.dispatch.facts import Facts
from planner.dispatch.shutdown import Shutdown
from planner.front.executors import Executors
from planner.front.generate import GENERATE, Generate
from planner.front.link import Link
from planner.front.planner_service import FrontPlannerService
from planner.front.relay import Handler, Relay
from planner.front.settings import FrontSettings
from planner.service.boundary import Boundary
from planner.service.listening import (
    LIVENESS,
    ListenError,
    MetricsListenError,
    bind,
    health_server,
    server_options,
    until_signal,
)
from planner.service.models import ModelLookup
from planner.service.planner_service import PlannerService
from planner.telemetry.logs import configure_logs
from planner.telemetry.telemetry import Telemetry

__all__ = [
    "ConnectionOptionsError",
    "Front",
    "FrontSettings",
    "ListenError",
    "MetricsListenError",
    "SecurityError",
    "TokensError",
    "serve",
]

_PLANNER = planner_pb2.DESCRIPTOR.services_by_name["PlannerService"].full_name
_FORWARDED = (
    generation_pb2.DESCRIPTOR.services_by_name["GenerationService"],
    monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"],
)
_FORWARDED_NAMES = tuple(service.full_name for service in _FORWARDED)
_FIRST_WORD_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Front:
    """A running replica: ``async with Front(settings) as front`` serves at ``address``.

    Raises SecurityError, TokensError or ConnectionOptionsError where what the settings say of
    security cannot be followed.
    """

    def __init__(self, settings: FrontSettings) -> None:
        self.address = ""
        self.health_address = ""
        self._settings = settings
        security, limits = settings.security, settings.limits
        check_security(settings.listen, security)
        self._credentials = server_credentials(security)
        tokens = None
        if security.tokens is not None:
            tokens = TokenFile(security.tokens, certificates=security.client_ca is not None)
        self._shutdown = Shutdown()
        facts = Facts()
        self._telemetry = Telemetry(facts, None, settings.metrics_listen)
        self._link = Link(settings.dispatch, settings.connection)
        self._executors = Executors(self._link, self._tell_health)
        self._models = ModelLookup(settings.model_roots, self._executors, self._executors)
        self._relay = Relay(
            self._link, self._executors, self._shutdown, self._telemetry.calls_traceparent
        )
        self._generate = Generate(self._link, self._relay, self._shutdown)
        self._health = health.Health()
        self._gate = Gate(tokens, limits)
        stalled = settings.timing.stalled_seconds
        self._boundary = Boundary(self._gate, stalled, limits.message_bytes)
        self._server = grpc.aio.server(
            interceptors=(*self._telemetry.interceptors, self._boundary),
            options=server_options(limits.message_bytes),
        )
        own = PlannerService(self._models, self._executors, limits, facts)
        planner_pb2_grpc.add_PlannerServiceServicer_to_server(
            FrontPlannerService(own, self._models, self._link, self._relay, limits), self._server
        )
        special: dict[str, Handler] = {GENERATE: self._generate.answers}
        self._server.add_generic_rpc_handlers((self._relay.handler(_FORWARDED, special),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (_PLANNER, *_FORWARDED_NAMES, health.SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._health_server = health_server((self._boundary,), self._health)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def metrics_address(self) -> str:
        """Where Prometheus finds metrics; "" where none are served."""
        return self._telemetry.metrics_address

    async def start(self) -> None:
        """Binds the addresses and serves; ListenError where one is taken or makes no sense.

        Whether the planner that dispatches can be reached makes no difference.
        """
        self.address = bind(self._server, self._settings.listen, self._credentials)
        health_listen = self._settings.security.health_listen
        if health_listen is not None:
            self.health_address = bind(self._health_server, health_listen, None)
        try:
            await self._telemetry.start()
        except CannotListenError as error:
            raise MetricsListenError(str(error)) from None
        self._run(self._executors.follow(self._models.offer))
        self._run(self._gate.keep())
        await self._executors.first_word(_FIRST_WORD_SECONDS)
        self._set_health(("", LIVENESS, _PLANNER), serving=True)
        self._set_health(_FORWARDED_NAMES, serving=not self._executors.away)
        await self._server.start()
        if self.health_address:
            await self._health_server.start()
        log.info("front_listening", address=self.address, dispatch=self._settings.dispatch)

    async def stop(self) -> None:
        """Turns unready, ends the open calls and stops. Work goes on without this replica."""
        log.info("front_stopping", address=self.address)
        self._shutdown.begun = True
        self._set_health(("", _PLANNER, *_FORWARDED_NAMES), serving=False)
        self._relay.stop()
        grace = self._settings.timing.stop_grace
        await self._server.stop(grace)
        await self._boundary.drained(grace)
        await self._generate.given_up(grace)
        await self._health_server.stop(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()
        await self._telemetry.stop()
        log.info("front_stopped", address=self.address)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell_health(self) -> None:
        if not self._shutdown.begun:
            self._set_health(_FORWARDED_NAMES, serving=not self._executors.away)

    def _set_health(self, names: tuple[str, ...], *, serving: bool) -> None:
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


async def serve(settings: FrontSettings, announce: Callable[[str], None] = print) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once.

    ``announce`` is called with the bound address.
    """
    configure_logs(level=settings.log_level)
    await until_signal(Front(settings), announce)
