"""``ditplan.v1.PlannerService`` of a replica: as that of the planner that dispatches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ditplan.v1 import planner_pb2
from ditplan.v1.planner_pb2_grpc import PlannerServiceServicer

from planner.errors import CallRefused
from planner.front.link import Link
from planner.front.relay import Relay, path_of
from planner.service.checks import check_model_name
from planner.service.models import ModelLookup
from planner.service.planner_service import PlannerService
from planner.settings import Limits

_METHODS = planner_pb2.DESCRIPTOR.services_by_name["PlannerService"].methods_by_name


class FrontPlannerService(PlannerServiceServicer):
    """Answers itself where it knows every model that a call names, and forwards all others.

    The planner that dispatches may know further ones: those that executors served before this
    replica was there, and directories below model roots of its own.
    """

    def __init__(
        self, own: PlannerService, models: ModelLookup, link: Link, relay: Relay, limits: Limits
    ) -> None:
        self._own = own
        self._models = models
        self._link = link
        self._relay = relay
        self._limits = limits

    async def CompilePlan(
        self, request: planner_pb2.CompilePlanRequest, context: Any
    ) -> planner_pb2.CompilePlanResponse:
        if self._knows([request.model]):
            return await self._own.CompilePlan(request, context)
        raw = await self._forward("CompilePlan", request, context)
        return planner_pb2.CompilePlanResponse.FromString(raw)

    async def CompilePlans(
        self, request: planner_pb2.CompilePlansRequest, context: Any
    ) -> planner_pb2.CompilePlansResponse:
        if self._knows(one.model for one in request.requests):
            return await self._own.CompilePlans(request, context)
        raw = await self._forward("CompilePlans", request, context)
        return planner_pb2.CompilePlansResponse.FromString(raw)

    async def ListModels(
        self, request: planner_pb2.ListModelsRequest, context: Any
    ) -> planner_pb2.ListModelsResponse:
        return await self._own.ListModels(request, context)

    def _knows(self, names: Iterable[str]) -> bool:
        for name in set(names):
            if any(check_model_name(name, "model", self._limits)):
                # Refused anywhere.
                continue
            try:
                self._models.find(name, "model")
            except CallRefused:
                return False
        return True

    async def _forward(self, method: str, request: Any, context: Any) -> bytes:
        dial = self._link.method(path_of(_METHODS[method]))
        call = self._relay.begin(dial, request.SerializeToString(), context)
        return await self._relay.answer(call, context)
