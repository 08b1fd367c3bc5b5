"""``ditplan.dispatch.v1.FrontService``: what replicas of the planner call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ditplan.dispatch.v1 import front_pb2
from ditplan.dispatch.v1.front_pb2_grpc import FrontServiceServicer
from ditplan.v1 import executor_pb2

from planner.codec import placement_to_proto
from planner.dispatch.matching import Offer
from planner.dispatch.notices import Notices, wait
from planner.dispatch.roster import Roster
from planner.dispatch.shutdown import Shutdown

# A replica is behind by no more than this and the way to it.
_LOOK_AGAIN_SECONDS = 0.1
# Nobody tells of it but a shutdown.
_EXECUTORS = "executors"


class FrontService(FrontServiceServicer):
    def __init__(self, roster: Roster, notices: Notices, shutdown: Shutdown) -> None:
        self._roster = roster
        self._notices = notices
        self._shutdown = shutdown

    async def WatchExecutors(
        self, request: front_pb2.WatchExecutorsRequest, context: Any
    ) -> AsyncGenerator[front_pb2.WatchExecutorsResponse, None]:
        told: dict[str, Offer] = {}
        complete = False
        with self._notices.listen(_EXECUTORS) as changed:
            while True:
                self._shutdown.refuse_if_begun()
                present = {offer.executor: offer for offer in self._roster.connected()}
                for name in told.keys() - present.keys():
                    del told[name]
                    yield front_pb2.WatchExecutorsResponse(disconnected=name)
                for name, offer in present.items():
                    known = told.get(name)
                    told[name] = offer
                    if known is not offer and known != offer:
                        yield front_pb2.WatchExecutorsResponse(connected=_counted_as(offer))
                if not complete:
                    complete = True
                    yield front_pb2.WatchExecutorsResponse(complete=True)
                await wait(changed, _LOOK_AGAIN_SECONDS)


def _counted_as(offer: Offer) -> executor_pb2.Executor:
    """An executor as it announces itself, with what it counts as in place of what it holds."""
    executor = executor_pb2.Executor(component_configs=offer.configs)
    if offer.announced is not None:
        executor.MergeFrom(offer.announced)
    executor.placement.CopyFrom(placement_to_proto(offer.offered.placement))
    executor.tp_size = offer.offered.tp_size
    del executor.extra_parallel_modules[:]
    executor.extra_parallel_modules.extend(offer.offered.shared_encoders)
    return executor
