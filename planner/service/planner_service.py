"""``ditplan.v1.PlannerService``: the preview. Needs no executor, keeps no state."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import grpc
import structlog
from ditplan.v1 import generation_pb2, planner_pb2
from ditplan.v1.planner_pb2_grpc import PlannerServiceServicer

from planner.codec import diagnostics_to_proto, model_to_proto
from planner.compile.compiler import compile_config
from planner.compile.plan import Program
from planner.compile.request import Request
from planner.diagnostics import Diagnostic, Severity
from planner.dispatch.differences import could_reload
from planner.dispatch.facts import Compiled, Facts
from planner.dispatch.matching import Requirement
from planner.dispatch.roster import Connected
from planner.dispatch.wording import words
from planner.errors import CallRefused, ErrorReason, Violation, internal, invalid, status_of
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name
from planner.service.admission import compiled_plan
from planner.service.checks import check_length, check_model_name, check_size
from planner.service.models import ModelLookup
from planner.settings import Limits

log = structlog.get_logger(__name__)

_MAX_REQUESTS = 256
# Clients accept 4 MiB by default.
_MAX_ANSWER_BYTES = 3 << 20
# Results kept for whoever asks again: 16 MiB at most.
_MAX_KNOWN = 256
_MAX_KNOWN_BYTES = 64 << 10
_MAX_EXECUTORS = 64
_VERSION = version("ditplan")
_GIVEN: Final = (
    "num_inference_steps",
    "world_size",
    "height",
    "width",
    "guidance_scale",
    "num_frames",
    "device",
    "dtype",
)


@dataclass(frozen=True, slots=True)
class _Compiled:
    program: Program
    response: planner_pb2.CompilePlanResponse


class PlannerService(PlannerServiceServicer):
    def __init__(
        self, models: ModelLookup, roster: Connected, limits: Limits, facts: Facts
    ) -> None:
        self._models = models
        self._roster = roster
        self._limits = limits
        self._facts = facts
        # Compiling is a function of these three: a result never grows stale.
        self._known: dict[tuple[ModelFacts, str, Request], _Compiled] = {}

    async def CompilePlan(
        self, request: planner_pb2.CompilePlanRequest, context: Any
    ) -> planner_pb2.CompilePlanResponse:
        return self._compiled(request)

    async def CompilePlans(
        self, request: planner_pb2.CompilePlansRequest, context: Any
    ) -> planner_pb2.CompilePlansResponse:
        if not 1 <= len(request.requests) <= _MAX_REQUESTS:
            text = f"{len(request.requests)} requests are not 1 to {_MAX_REQUESTS}"
            raise invalid([Violation("requests", text)])
        response = planner_pb2.CompilePlansResponse()
        room = _MAX_ANSWER_BYTES
        for one in request.requests:
            result = self._result(one) if room else _exhausted()
            size = result.ByteSize()
            room = room - size if size <= room else 0
            if not room:
                result = _exhausted()
            response.results.append(result)
            # Other calls go on meanwhile, and the end of this one is noticed.
            await asyncio.sleep(0)
        return response

    async def ListModels(
        self, request: planner_pb2.ListModelsRequest, context: Any
    ) -> planner_pb2.ListModelsResponse:
        # For whoever checks a deployment without being let in to MonitorService.
        trailers = ("ditplan-version", _VERSION), ("ditplan-time", f"{time.time():.3f}")
        context.set_trailing_metadata(trailers)
        return planner_pb2.ListModelsResponse(
            models=[
                planner_pb2.NamedModel(
                    name=name, model=model_to_proto(from_name(name).architecture)
                )
                for name in NAMED
            ]
        )

    def _compiled(self, request: planner_pb2.CompilePlanRequest) -> planner_pb2.CompilePlanResponse:
        faults = list(check_model_name(request.model, "model", self._limits))
        if faults:
            raise invalid(faults)
        model = self._models.find(request.model, "model")
        given = {name: getattr(request, name) for name in _GIVEN if request.HasField(name)}
        asked = Request(**given, negative_prompt=request.negative_prompt)
        key = (model.facts, request.config, asked)
        known = self._known.pop(key, None)
        if known is None:
            began = time.perf_counter()
            compilation = compile_config(request.config, model.facts, asked)
            self._facts.tell(Compiled(time.perf_counter() - began))
            program, plan, diagnostics = compiled_plan(compilation)
            filled = _filled(compilation.request)
            check_length(filled, self._limits)
            check_size(filled, self._limits)
            response = planner_pb2.CompilePlanResponse(plan=plan, diagnostics=diagnostics)
            known = _Compiled(program, response)
        if len(request.config) + known.response.ByteSize() <= _MAX_KNOWN_BYTES:
            # Again the newest of a dict, whose first is the oldest.
            self._known[key] = known
            if len(self._known) > _MAX_KNOWN:
                del self._known[next(iter(self._known))]
        return self._with_executors(known, model.name)

    def _with_executors(self, known: _Compiled, model: str) -> planner_pb2.CompilePlanResponse:
        """The answer with who could run the plan now."""
        offers = [offer for offer in self._roster.connected() if offer.offered.model == model]
        if not offers:
            return known.response
        needed = Requirement.of(model, known.program)
        response = planner_pb2.CompilePlanResponse()
        response.CopyFrom(known.response)
        for offer in sorted(offers, key=lambda offer: offer.executor)[:_MAX_EXECUTORS]:
            differs = words(needed, offer)
            response.executors.add(
                executor=offer.executor,
                differences=differs,
                after_reload=bool(differs) and could_reload(needed, offer),
            )
        return response

    def _result(self, request: planner_pb2.CompilePlanRequest) -> planner_pb2.CompilePlanResult:
        try:
            return planner_pb2.CompilePlanResult(compiled=self._compiled(request))
        except CallRefused as refused:
            return _refused(refused)
        except Exception:
            log.exception("compile_failed")
            return _refused(internal())


def _filled(request: Request) -> generation_pb2.GenerationSpec:
    """What the limits of generations are about."""
    return generation_pb2.GenerationSpec(
        num_inference_steps=request.steps,
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
    )


def _refused(refused: CallRefused) -> planner_pb2.CompilePlanResult:
    code = refused.reason.value.lower().replace("_", "-")
    diagnostics = refused.diagnostics or [
        Diagnostic(Severity.ERROR, code, violation.field, violation.description)
        for violation in refused.violations
    ]
    return planner_pb2.CompilePlanResult(
        refused=planner_pb2.CompileRefusal(
            code=refused.code.value[0],
            reason=refused.reason.value,
            message=status_of(refused).message,
            diagnostics=diagnostics_to_proto(diagnostics),
        )
    )


def _exhausted() -> planner_pb2.CompilePlanResult:
    return _refused(
        CallRefused(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            ErrorReason.ANSWER_FULL,
            "the answer is full; ask for this plan in another call",
        )
    )
