"""What is seen of a planner from outside: metrics and traces, each only where it is asked for."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import grpc
import structlog
from ditplan.common.tracing import NoTracesError, tracing
from ditplan.v1 import monitor_pb2

from planner.dispatch.facts import Facts
from planner.telemetry.calls import SeenCalls
from planner.telemetry.status import StatusBoard

_STATUS_AGE_SECONDS = 1.0
_STATUS_SECONDS = 5.0

if TYPE_CHECKING:
    from ditplan.common.metrics_port import MetricsPort

    from planner.telemetry.metrics import Metrics
    from planner.telemetry.traces import Traces

log = structlog.get_logger(__name__)


class Telemetry:
    def __init__(self, facts: Facts, board: StatusBoard | None, metrics_listen: str) -> None:
        """``board`` None: a replica, which has no queue. ``metrics_listen`` "": no metrics."""
        self._board = board
        self._listen = metrics_listen
        self._loop: asyncio.AbstractEventLoop | None = None
        self.interceptors: list[grpc.aio.ServerInterceptor] = []
        self.metrics_address = ""
        self._metrics: Metrics | None = None
        self._port: MetricsPort | None = None
        self._traces: Traces | None = None
        if metrics_listen:
            from planner.telemetry.metrics import Metrics

            self._metrics = Metrics(None if board is None else self._status)
            self._add(facts, self._metrics)
        try:
            asked = tracing("ditplan-planner", os.environ)
        except NoTracesError as error:
            log.warning("traces_missing", reason=str(error))
            return
        if asked is not None:
            from planner.telemetry.traces import Traces

            self._traces = Traces(asked)
            self._add(facts, self._traces)

    def calls_traceparent(self) -> str:
        """The span of the client's call that is being answered; "" where nothing is traced."""
        return "" if self._traces is None else self._traces.calls_traceparent()

    def traceparent(self, generation: str) -> str:
        """What the run of a generation continues; "" where nothing is traced."""
        return "" if self._traces is None else self._traces.traceparent(generation)

    async def start(self) -> None:
        """Raises `ditplan.common.metrics_port.CannotListenError`."""
        if self._metrics is not None:
            from ditplan.common.metrics_port import MetricsPort

            self._loop = asyncio.get_running_loop()
            self._port = MetricsPort(self._listen, self._metrics.registry)
            self.metrics_address = self._port.address
            log.info("metrics_listening", address=self.metrics_address)

    async def stop(self) -> None:
        """While the store can still be read."""
        if self._port is not None:
            await asyncio.to_thread(self._port.close)
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)

    def _add(self, facts: Facts, seer: Metrics | Traces) -> None:
        facts.listen(seer.hear)
        self.interceptors.append(SeenCalls(seer.call))

    def _status(self) -> monitor_pb2.WatchStatusResponse:
        """For threads other than the loop's, which alone may read the store."""
        assert self._loop is not None, "it has not started"
        return asyncio.run_coroutine_threadsafe(self._look(), self._loop).result(_STATUS_SECONDS)

    async def _look(self) -> monitor_pb2.WatchStatusResponse:
        assert self._board is not None, "who has none is not asked"
        return self._board.status(_STATUS_AGE_SECONDS)
