"""Puts the services on a socket, and takes them off it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from ditplan.common import health
from ditplan.common.metrics_port import CannotListenError

from planner.access.gate import Gate
from planner.access.tls import SecurityError, check_security, server_credentials
from planner.access.tokens import TokenFile, TokensError
from planner.dispatch.dispatcher import Dispatcher
from planner.dispatch.facts import Facts
from planner.dispatch.notices import Notices
from planner.dispatch.requirements import Requirements
from planner.dispatch.retention import Retention
from planner.dispatch.roster import Roster
from planner.dispatch.sessions import Sessions
from planner.dispatch.settlement import Settlement
from planner.dispatch.shutdown import Shutdown
from planner.scaling.forecast import Forecast
from planner.service.boundary import Boundary
from planner.service.creation import Creation
from planner.service.dispatch_service import DispatchService
from planner.service.front_service import FrontService
from planner.service.generation_service import GenerationService
from planner.service.listening import (
    LIVENESS,
    SERVICE_NAMES,
    ListenError,
    MetricsListenError,
    Services,
    bind,
    health_server,
    public_server,
    until_signal,
)
from planner.service.models import ModelLookup
from planner.service.monitor_service import MonitorService
from planner.service.planner_service import PlannerService
from planner.service.scaler_port import ScalerPort
from planner.service.scaler_service import ScalerService
from planner.service.uploads import Uploads
from planner.service.watch import Watch
from planner.settings import Limits, Security, Settings, Timing
from planner.store.directory import DataDirectory, UnusableDirectoryError
from planner.telemetry.logs import configure_logs
from planner.telemetry.status import StatusBoard
from planner.telemetry.telemetry import Telemetry

__all__ = [
    "Limits",
    "ListenError",
    "MetricsListenError",
    "Planner",
    "Security",
    "SecurityError",
    "Settings",
    "Timing",
    "TokensError",
    "UnusableDirectoryError",
    "serve",
]

log = structlog.get_logger(__name__)


class Planner:
    """A running planner: ``async with Planner(settings) as planner`` serves at ``address``.

    Raises UnusableDirectoryError where the settings' data directory cannot be had, SecurityError or
    TokensError where what they say of security cannot be followed.
    """

    def __init__(self, settings: Settings) -> None:
        self.address = ""
        self.health_address = ""
        self._settings = settings
        security = settings.security
        check_security(settings.listen, security)
        self._credentials = server_credentials(security)
        tokens = None
        if security.tokens is not None:
            tokens = TokenFile(security.tokens, certificates=security.client_ca is not None)
        timing, limits = settings.timing, settings.limits
        self._data = DataDirectory(settings.data, timing.retain)
        self._shutdown = Shutdown()
        self._notices = Notices()
        self._sessions = Sessions()
        store, files = self._data.store, self._data.files
        shutdown, notices = self._shutdown, self._notices
        roster = Roster(timing.connected_grace)
        requirements = Requirements(store)
        models = ModelLookup(settings.model_roots, roster, store)
        facts = Facts()
        self._settlement = Settlement(
            store, files, roster, notices, self._sessions, requirements, timing, limits, facts
        )
        dispatcher = Dispatcher(
            store,
            roster,
            notices,
            self._sessions,
            self._settlement,
            requirements,
            shutdown,
            timing,
            limits,
            facts,
        )
        self._retention = Retention(self._data, timing, limits)
        forecast = Forecast(store, notices)
        facts.listen(forecast.hear)
        board = StatusBoard(store, roster, self._sessions, forecast)
        self._telemetry = Telemetry(facts, board, settings.metrics_listen)
        creation = Creation(
            store,
            roster,
            models,
            self._settlement,
            shutdown,
            self._retention,
            settings,
            facts,
            self._telemetry.calls_traceparent,
        )
        watch = Watch(store, notices, shutdown)
        uploads = Uploads(store, files, dispatcher, limits)
        self._health = health.Health()
        self._gate = Gate(tokens, limits)
        self._boundary = Boundary(self._gate, timing.stalled_seconds, limits.message_bytes)
        self._server = public_server(
            (*self._telemetry.interceptors, self._boundary),
            limits.message_bytes,
            Services(
                PlannerService(models, roster, limits, facts),
                GenerationService(
                    store, files, creation, self._settlement, shutdown, watch, models, limits
                ),
                DispatchService(
                    store,
                    roster,
                    models,
                    dispatcher,
                    shutdown,
                    uploads,
                    settings,
                    self._telemetry.traceparent,
                ),
                FrontService(roster, notices, shutdown),
                MonitorService(board, notices, shutdown),
                self._health,
            ),
        )
        self._health_server = health_server((self._boundary,), self._health)
        self._scaler = ScalerPort(ScalerService(forecast, notices, shutdown), timing)
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def metrics_address(self) -> str:
        """Where Prometheus finds metrics; "" where none are served."""
        return self._telemetry.metrics_address

    @property
    def scaler_address(self) -> str:
        """Where KEDA asks; "" where it cannot."""
        return self._scaler.address

    async def start(self) -> None:
        """Binds the addresses and serves; ListenError where one is taken or makes no sense."""
        self.address = bind(self._server, self._settings.listen, self._credentials)
        health_listen = self._settings.security.health_listen
        if health_listen is not None:
            self.health_address = bind(self._health_server, health_listen, None)
        if self._settings.scaler_listen is not None:
            self._scaler.bind(self._settings.scaler_listen)
        try:
            await self._telemetry.start()
        except CannotListenError as error:
            raise MetricsListenError(str(error)) from None
        for name in ("", LIVENESS, *SERVICE_NAMES):
            self._health.set(name, health.SERVING)
        self._settlement.adopt_leases()
        for part in (self._settlement, self._retention, self._gate):
            self._keepers.append(asyncio.create_task(part.keep()))
        await self._server.start()
        if self.health_address:
            await self._health_server.start()
        if self.scaler_address:
            await self._scaler.start()
        log.info(
            "planner_listening",
            address=self.address,
            health_address=self.health_address,
            scaler_address=self.scaler_address,
        )

    async def stop(self) -> None:
        """Turns unready, ends the open calls and stops. Running work is kept for its return."""
        log.info("planner_stopping", address=self.address)
        for name in ("", *SERVICE_NAMES):
            self._health.set(name, health.NOT_SERVING)
        self._shutdown.begun = True
        self._sessions.wake_all()
        self._notices.notify_all()
        grace = self._settings.timing.stop_grace
        await self._server.stop(grace)
        await self._boundary.drained(grace)
        await self._scaler.stop(grace)
        await self._health_server.stop(None)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._telemetry.stop()
        self._data.close()
        log.info("planner_stopped", address=self.address)

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


async def serve(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once.

    ``announce`` is called with the bound address.
    """
    configure_logs(level=settings.log_level)
    await until_signal(Planner(settings), announce)
