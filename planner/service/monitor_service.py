"""``ditplan.v1.MonitorService``: what operators call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ditplan.v1 import monitor_pb2
from ditplan.v1.monitor_pb2_grpc import MonitorServiceServicer

from planner.dispatch.notices import Notices, wait
from planner.dispatch.shutdown import Shutdown
from planner.errors import Violation, invalid
from planner.telemetry.status import StatusBoard

_DEFAULT_SECONDS = 1.0
_LEAST_SECONDS = 0.1
_MOST_SECONDS = 60.0
# Nobody tells of it but a shutdown.
_STATUS = "status"


class MonitorService(MonitorServiceServicer):
    def __init__(self, board: StatusBoard, notices: Notices, shutdown: Shutdown) -> None:
        self._board = board
        self._notices = notices
        self._shutdown = shutdown

    async def WatchStatus(
        self, request: monitor_pb2.WatchStatusRequest, context: Any
    ) -> AsyncGenerator[monitor_pb2.WatchStatusResponse, None]:
        seconds = request.interval_seconds or _DEFAULT_SECONDS
        if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
            text = f"{seconds:g} s are not {_LEAST_SECONDS:g} to {_MOST_SECONDS:g} s"
            raise invalid([Violation("interval_seconds", text)])
        with self._notices.listen(_STATUS) as changed:
            while True:
                self._shutdown.refuse_if_begun()
                # Who looks once, or first, is not given what another saw long ago.
                yield self._board.status(min(seconds, _DEFAULT_SECONDS))
                if request.once:
                    return
                await wait(changed, seconds)
