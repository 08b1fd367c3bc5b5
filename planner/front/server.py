"""Puts a replica's services on a socket, and takes them off it again."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from ditplan.v1 import generation_pb2, monitor_pb2, planner_pb2, planner_pb2_grpc

from planner.dispatch.facts import Facts
from planner.dispatch.shutdown import Shutdown
from planner.front.executors import Executors
from planner.front.generate import GENERATE, Generate
from planner.front.link import Link
from planner.front.planner_service import FrontPlannerService
from planner.front.relay import Handler, Relay
from planner.front.settings import FrontSettings
from planner.listening.listener import Listener, until_signal
from planner.listening.sockets import LIVENESS
from planner.service.models import ModelLookup
from planner.service.planner_service import PlannerService
from planner.telemetry.logs import configure_logs
from planner.telemetry.telemetry import Telemetry

_PLANNER = planner_pb2.DESCRIPTOR.services_by_name["PlannerService"].full_name
_FORWARDED = (
    generation_pb2.DESCRIPTOR.services_by_name["GenerationService"],
    monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"],
)
_FORWARDED_NAMES = tuple(service.full_name for service in _FORWARDED)
_FIRST_WORD_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Front(Listener):
    """A running replica: ``async with Front(settings) as front`` serves at ``address``.

    Raises SecurityError, TokensError or ConnectionOptionsError where what the settings say of
    security cannot be followed.
    """

    def __init__(self, settings: FrontSettings) -> None:
        super().__init__(settings)
        self._dispatch = settings.dispatch
        limits = settings.limits
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
        server = self._make_server(self._telemetry.interceptors, (_PLANNER, *_FORWARDED_NAMES))
        own = PlannerService(self._models, self._executors, limits, facts)
        planner_pb2_grpc.add_PlannerServiceServicer_to_server(
            FrontPlannerService(own, self._models, self._link, self._relay, limits), server
        )
        special: dict[str, Handler] = {GENERATE: self._generate.answers}
        server.add_generic_rpc_handlers((self._relay.handler(_FORWARDED, special),))

    @property
    def metrics_address(self) -> str:
        """Where Prometheus finds metrics; "" where none are served."""
        return self._telemetry.metrics_address

    async def start(self) -> None:
        """Whether the planner that dispatches can be reached makes no difference."""
        self._bind()
        await self._telemetry.start()
        self._run(self._executors.follow(self._models.offer))
        self._run(self._gate.keep())
        await self._executors.first_word(_FIRST_WORD_SECONDS)
        self._set_health(("", LIVENESS, _PLANNER), serving=True)
        self._set_health(_FORWARDED_NAMES, serving=not self._executors.away)
        await self._answer()
        log.info("front_listening", address=self.address, dispatch=self._dispatch)

    async def stop(self) -> None:
        """Work goes on without this replica."""
        log.info("front_stopping", address=self.address)
        self._shutdown.begun = True
        self._set_health(("", _PLANNER, *_FORWARDED_NAMES), serving=False)
        self._relay.stop()
        await self._hang_up()
        await self._generate.given_up(self._grace)
        await self._end_tasks()
        await self._link.close()
        await self._telemetry.stop()
        log.info("front_stopped", address=self.address)

    def _tell_health(self) -> None:
        if not self._shutdown.begun:
            self._set_health(_FORWARDED_NAMES, serving=not self._executors.away)


async def serve(settings: FrontSettings, announce: Callable[[str], None] = print) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once.

    ``announce`` is called with the bound address.
    """
    configure_logs(level=settings.log_level)
    await until_signal(Front(settings), announce)
