"""``ditplan.v1.PlannerService``: the preview. Needs no executor, keeps no state."""

from __future__ import annotations

from typing import Any

from ditplan.v1 import planner_pb2
from ditplan.v1.planner_pb2_grpc import PlannerServiceServicer

from planner.codec import model_to_proto
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.errors import invalid
from planner.models.catalog import NAMED
from planner.models.resolve import from_name
from planner.service.admission import compiled_plan
from planner.service.checks import check_model_name
from planner.service.models import ModelLookup
from planner.settings import Limits


class PlannerService(PlannerServiceServicer):
    def __init__(self, models: ModelLookup, limits: Limits) -> None:
        self._models = models
        self._limits = limits

    async def CompilePlan(
        self, request: planner_pb2.CompilePlanRequest, context: Any
    ) -> planner_pb2.CompilePlanResponse:
        faults = list(check_model_name(request.model, "model", self._limits))
        if faults:
            raise invalid(faults)
        model = self._models.find(request.model, "model")
        given = {
            name: getattr(request, name)
            for name in (
                "num_inference_steps",
                "world_size",
                "height",
                "width",
                "guidance_scale",
                "num_frames",
            )
            if request.HasField(name)
        }
        asked = Request(**given, negative_prompt=request.negative_prompt)
        compilation = compile_config(request.config, model.facts, asked)
        _, plan, diagnostics = compiled_plan(compilation)
        return planner_pb2.CompilePlanResponse(plan=plan, diagnostics=diagnostics)

    async def ListModels(
        self, request: planner_pb2.ListModelsRequest, context: Any
    ) -> planner_pb2.ListModelsResponse:
        return planner_pb2.ListModelsResponse(
            models=[
                planner_pb2.NamedModel(
                    name=name, model=model_to_proto(from_name(name).architecture)
                )
                for name in NAMED
            ]
        )
