"""Compiles an acceleration config for a model and a request into a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.compile.attention import resolve_attention_backend
from planner.compile.caching import cache_columns
from planner.compile.device import check_device
from planner.compile.estimate import estimate_cost
from planner.compile.plan import (
    Branch,
    Column,
    Estimate,
    Op,
    OpKind,
    Program,
    Reason,
)
from planner.compile.program_check import program_faults
from planner.compile.quantization import resolve_placement
from planner.compile.request import Request, check_request, with_defaults
from planner.compile.rule import Bounds, column_bounds
from planner.compile.sources import Source, config_sources, request_sources
from planner.compile.topology import check_sequence, resolve_topology
from planner.config.acceleration import AccelerationConfig
from planner.config.document import Document
from planner.config.environment import apply_environment
from planner.config.load import load
from planner.diagnostics import Diagnostic, Severity, has_errors
from planner.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Compilation:
    """A program with its estimate, or None for both when ``diagnostics`` hold an error.

    ``request`` has every default filled in. ``sources`` say where the values come from that the
    program was made of; none where it was taken as it is.
    """

    program: Program | None
    estimate: Estimate | None
    request: Request
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[Source, ...] = ()


def compile_config(
    config: str | bytes,
    model: ModelFacts,
    request: Request,
    environment: Mapping[str, str] | None = None,
) -> Compilation:
    """Compiles YAML or JSON text; an empty text is no acceleration. Never raises on bad input.

    Variables of the ``environment`` fill what the text leaves out.
    """
    source = load(config)
    apply_environment(source, environment or {})
    asked = request
    if request.num_inference_steps is None and source.cache is not None:
        request = replace(request, num_inference_steps=source.cache.num_inference_steps)
    request = with_defaults(request, model)
    check_request(source, model, request)
    if has_errors(source.diagnostics):
        # What a broken request or file would compute is not worth diagnosing.
        return _failed(source, request)
    topology = resolve_topology(source, model, request.world_size)
    check_sequence(source, model, topology, request)
    placement = resolve_placement(source, model)
    attention_backend = resolve_attention_backend(source, model, topology)
    if request.device is not None:
        check_device(source, placement, attention_backend, request.device)
    columns, steps = _columns(source, model, request)
    if has_errors(source.diagnostics):
        return _failed(source, request)
    program = Program(
        model=model.architecture,
        columns=columns,
        steps=steps,
        topology=topology,
        placement=placement,
        attention_backend=attention_backend,
    )
    finished = _finished(source, program, model, request)
    sources = (*request_sources(asked, request, source), *config_sources(source))
    return replace(finished, sources=sources)


def compile_program(program: Program, model: ModelFacts, request: Request) -> Compilation:
    """Checks a finished program (a replay, a stored plan) as if it had just been compiled."""
    source = AccelerationConfig(Document(None))
    steps = program.num_inference_steps
    if request.num_inference_steps not in (None, steps):
        source.report(
            Severity.ERROR,
            "program-steps",
            ("num_inference_steps",),
            f"the request asks for {request.num_inference_steps} steps, the program has {steps}",
        )
    world_size = request.world_size or program.topology.world_size
    request = with_defaults(
        replace(request, num_inference_steps=steps, world_size=world_size), model
    )
    check_request(source, model, request)
    for path, message in program_faults(program, model, world_size):
        source.report(Severity.ERROR, "malformed-program", ("program", *path), message)
    if has_errors(source.diagnostics):
        return _failed(source, request)
    return _finished(source, program, model, request)


def _columns(
    source: AccelerationConfig, model: ModelFacts, request: Request
) -> tuple[tuple[Column, ...], tuple[tuple[Op | None, ...], ...]]:
    """Columns and their ops by step, in the order in which a step runs its forwards."""
    branches = (Branch.COND, Branch.UNCOND)[: _forwards(model, request)]
    by_column = (
        _uncached_columns(model, request.steps, branches)
        if source.cache is None
        else cache_columns(source, source.cache, model, request.steps, branches)
    )
    return (
        tuple(column for column, _ in by_column),
        tuple(zip(*(ops for _, ops in by_column), strict=True)),
    )


def _forwards(model: ModelFacts, request: Request) -> int:
    return model.guidance.forwards(request.guidance_scale, negative_prompt=request.negative_prompt)


def _uncached_columns(
    model: ModelFacts, steps: int, branches: tuple[Branch, ...]
) -> list[tuple[Column, tuple[Op | None, ...]]]:
    full = Op(OpKind.FULL, Reason.NO_CACHE)
    return [
        (
            Column(target.name, branch, group.block_lists),
            tuple(full if i in model.steps_of(target.name, steps) else None for i in range(steps)),
        )
        for target in model.architecture.targets
        for branch in branches
        for group in model.groups
        if group.target == target.name
    ]


def _finished(
    source: AccelerationConfig, program: Program, model: ModelFacts, request: Request
) -> Compilation:
    by_target: dict[str, list[Bounds]] = {}
    by_column = column_bounds(program)
    for column, each in zip(program.columns, by_column, strict=True):
        by_target.setdefault(column.target, []).append(each)
    # A step counts once, whatever the number of its forwards; targets do not share steps.
    estimate = Estimate(
        min_computed_steps=sum(max(b.min_computed for b in each) for each in by_target.values()),
        max_computed_steps=sum(max(b.max_computed for b in each) for each in by_target.values()),
        cost=estimate_cost(program, model, request, by_column),
    )
    world_size = program.topology.world_size
    return Compilation(program, estimate, replace(request, world_size=world_size), _ordered(source))


def _failed(source: AccelerationConfig, request: Request) -> Compilation:
    return Compilation(None, None, request, _ordered(source))


def _ordered(source: AccelerationConfig) -> tuple[Diagnostic, ...]:
    return tuple(sorted(source.diagnostics, key=lambda d: (d.line, d.column)))
