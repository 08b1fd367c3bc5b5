"""Puts the services on a socket, and takes them off it again."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from ditplan.dispatch.v1 import dispatch_pb2, dispatch_pb2_grpc, front_pb2, front_pb2_grpc
from ditplan.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    monitor_pb2,
    monitor_pb2_grpc,
    planner_pb2,
    planner_pb2_grpc,
)

from planner.dispatch.dispatcher import Dispatcher
from planner.dispatch.facts import Facts
from planner.dispatch.notices import Notices
from planner.dispatch.requirements import Requirements
from planner.dispatch.retention import Retention
from planner.dispatch.roster import Roster
from planner.dispatch.sessions import Sessions
from planner.dispatch.settlement import Settlement
from planner.dispatch.shutdown import Shutdown
from planner.listening.listener import Listener, until_signal
from planner.listening.sockets import LIVENESS
from planner.scaling.forecast import Forecast
from planner.service.creation import Creation
from planner.service.dispatch_service import DispatchService
from planner.service.front_service import FrontService
from planner.service.generation_service import GenerationService
from planner.service.models import ModelLookup
from planner.service.monitor_service import MonitorService
from planner.service.planner_service import PlannerService
from planner.service.scaler_port import ScalerPort
from planner.service.scaler_service import ScalerService
from planner.service.uploads import Uploads
from planner.service.watch import Watch
from planner.settings import Settings
from planner.store.directory import DataDirectory
from planner.telemetry.logs import configure_logs
from planner.telemetry.status import StatusBoard
from planner.telemetry.telemetry import Telemetry

__all__ = ["Planner", "Settings", "serve"]

_SERVICES = (
    planner_pb2.DESCRIPTOR.services_by_name["PlannerService"].full_name,
    generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
    dispatch_pb2.DESCRIPTOR.services_by_name["DispatchService"].full_name,
    front_pb2.DESCRIPTOR.services_by_name["FrontService"].full_name,
    monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"].full_name,
)

log = structlog.get_logger(__name__)


class Planner(Listener):
    """A running planner: ``async with Planner(settings) as planner`` serves at ``address``.

    Raises UnusableDirectoryError where the settings' data directory cannot be had, SecurityError or
    TokensError where what they say of security cannot be followed.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._scaler_listen = settings.scaler_listen
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
        server = self._make_server(self._telemetry.interceptors, _SERVICES)
        planner_pb2_grpc.add_PlannerServiceServicer_to_server(
            PlannerService(models, roster, limits, facts), server
        )
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationService(
                store, files, creation, self._settlement, shutdown, watch, models, limits
            ),
            server,
        )
        dispatch_pb2_grpc.add_DispatchServiceServicer_to_server(
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
            server,
        )
        front_pb2_grpc.add_FrontServiceServicer_to_server(
            FrontService(roster, notices, shutdown), server
        )
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(
            MonitorService(board, notices, shutdown), server
        )
        self._scaler = ScalerPort(ScalerService(forecast, notices, shutdown), timing)

    @property
    def metrics_address(self) -> str:
        """Where Prometheus finds metrics; "" where none are served."""
        return self._telemetry.metrics_address

    @property
    def scaler_address(self) -> str:
        """Where KEDA asks; "" where it cannot."""
        return self._scaler.address

    async def start(self) -> None:
        self._bind()
        if self._scaler_listen is not None:
            self._scaler.bind(self._scaler_listen)
        await self._telemetry.start()
        self._set_health(("", LIVENESS, *_SERVICES), serving=True)
        self._settlement.adopt_leases()
        for part in (self._settlement, self._retention, self._gate):
            self._run(part.keep())
        await self._answer()
        if self.scaler_address:
            await self._scaler.start()
        log.info(
            "planner_listening",
            address=self.address,
            health_address=self.health_address,
            scaler_address=self.scaler_address,
        )

    async def stop(self) -> None:
        """Running work is kept for its return."""
        log.info("planner_stopping", address=self.address)
        self._set_health(("", *_SERVICES), serving=False)
        self._shutdown.begun = True
        self._sessions.wake_all()
        self._notices.notify_all()
        await self._hang_up()
        await self._scaler.stop(self._grace)
        await self._end_tasks()
        await self._telemetry.stop()
        self._data.close()
        log.info("planner_stopped", address=self.address)


async def serve(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once.

    ``announce`` is called with the bound address.
    """
    configure_logs(level=settings.log_level)
    await until_signal(Planner(settings), announce)
