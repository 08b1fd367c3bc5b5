"""From a request to work that can be queued: compiled, with every default filled in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from ditplan.v1 import generation_pb2, plan_pb2, planner_pb2

from planner.codec import (
    MalformedProgramError,
    diagnostics_to_proto,
    plan_to_proto,
    program_from_proto,
)
from planner.compile import dtype
from planner.compile.compiler import Compilation, compile_config, compile_program, in_dtype
from planner.compile.plan import Program
from planner.compile.request import MAX_STEPS, Request
from planner.dispatch.differences import could_reload
from planner.dispatch.matching import Offer, Requirement
from planner.errors import Violation, invalid, invalid_config
from planner.models.facts import Architecture
from planner.service.models import Model
from planner.service.pictures import count_faults, digest, picture_size

_MAX_COLUMNS = 256
# A seed that a person can still read aloud.
_SEED_BITS = 32


@dataclass(frozen=True, slots=True)
class Admitted:
    """``spec`` is the request's with every default filled in."""

    requirement: Requirement
    spec: generation_pb2.GenerationSpec
    plan: plan_pb2.Plan
    diagnostics: list[planner_pb2.Diagnostic]


def compiled_plan(
    compilation: Compilation,
) -> tuple[Program, plan_pb2.Plan, list[planner_pb2.Diagnostic]]:
    """The plan of a compilation; INVALID_ARGUMENT with every error where there is none."""
    program, estimate = compilation.program, compilation.estimate
    if program is None or estimate is None:
        raise invalid_config(compilation.diagnostics)
    plan = plan_to_proto(program, estimate)
    return program, plan, diagnostics_to_proto(compilation.diagnostics)


def admit(spec: generation_pb2.GenerationSpec, model: Model, offers: list[Offer]) -> Admitted:
    """Compiles a spec for the executors that are connected; which of them matches is not asked."""
    faults = list(count_faults(len(spec.images), model.facts))
    if spec.HasField("fps") and model.facts.defaults.num_frames is None:
        faults.append(Violation("spec.fps", "this model makes pictures, not films"))
    if spec.image_format and model.facts.defaults.num_frames is not None:
        faults.append(Violation("spec.image_format", "this model makes films, which are MP4"))
    if faults:
        raise invalid(faults)
    serving = [offer for offer in offers if offer.offered.model == model.name]
    compilation = _in_their_dtype(_compile(spec, model, serving), model, serving)
    program, plan, diagnostics = compiled_plan(compilation)
    filled = generation_pb2.GenerationSpec()
    filled.CopyFrom(spec)
    request = compilation.request
    assert request.height is not None
    assert request.width is not None
    filled.num_inference_steps = program.num_inference_steps
    filled.height = request.height
    filled.width = request.width
    if request.num_frames is not None:
        filled.num_frames = request.num_frames
    for image in filled.images:
        image.sha256 = digest(image.data)
    if not spec.HasField("seed"):
        filled.seed = secrets.randbits(_SEED_BITS)
    return Admitted(Requirement.of(model.name, program), filled, plan, diagnostics)


def _in_their_dtype(compilation: Compilation, model: Model, serving: list[Offer]) -> Compilation:
    """With the estimate of the executors that could run it; of the widest where they differ."""
    if compilation.program is None:
        return compilation
    needed = Requirement.of(model.name, compilation.program)
    matching = [offer for offer in serving if needed.key in offer.keys]
    matching = matching or [offer for offer in serving if could_reload(needed, offer)]
    able = [offer.dtype for offer in matching]
    known = sorted((name for name in able if name), key=lambda name: (dtype.BYTES[name], name))
    return in_dtype(compilation, model.facts, known[-1]) if known else compilation


def _compile(
    spec: generation_pb2.GenerationSpec, model: Model, serving: list[Offer]
) -> Compilation:
    if spec.HasField("program"):
        program = _program(spec.program, model.facts.architecture)
        return compile_program(program, model.facts, _request(spec, None))
    tried, after_reload = [], []
    # Most ranks first: where the config leaves the world size open, more of them finish sooner.
    for world_size in sorted({offer.offered.world_size for offer in serving}, reverse=True):
        compilation = compile_config(spec.config, model.facts, _request(spec, world_size))
        if compilation.program is not None:
            needed = Requirement.of(model.name, compilation.program)
            if any(needed.key in offer.keys for offer in serving):
                return compilation
            if any(could_reload(needed, offer) for offer in serving):
                after_reload.append(compilation)
        tried.append(compilation)
    if after_reload:
        return after_reload[0]
    without = compile_config(spec.config, model.facts, _request(spec, None))
    if without.program is None and tried:
        return tried[0]
    return without


def _request(spec: generation_pb2.GenerationSpec, world_size: int | None) -> Request:
    return Request(
        num_inference_steps=spec.num_inference_steps
        if spec.HasField("num_inference_steps")
        else None,
        world_size=world_size,
        height=spec.height if spec.HasField("height") else None,
        width=spec.width if spec.HasField("width") else None,
        guidance_scale=spec.guidance_scale if spec.HasField("guidance_scale") else None,
        num_frames=spec.num_frames if spec.HasField("num_frames") else None,
        negative_prompt=spec.HasField("negative_prompt"),
        picture=picture_size(spec.images[0]) if spec.images else None,
    )


def _program(message: plan_pb2.Program, architecture: Architecture) -> Program:
    try:
        if len(message.columns) > _MAX_COLUMNS or len(message.steps) > MAX_STEPS:
            raise MalformedProgramError(f"more than {_MAX_COLUMNS} columns or {MAX_STEPS} steps")
        return program_from_proto(message, architecture)
    except MalformedProgramError as malformed:
        raise invalid([Violation("spec.program", str(malformed))]) from None
