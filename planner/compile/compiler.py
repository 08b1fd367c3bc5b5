"""Compiles an acceleration config for a model and a request into a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.compile.attention import resolve_attention_backend
from planner.compile.cache.columns import cache_columns
from planner.compile.counters import Bounds
from planner.compile.device import check_device, check_dtype
from planner.compile.estimates.estimate import estimate_cost
from planner.compile.estimates.weights import QuantizedLayers, quantized_layers
from planner.compile.mesh_checks import check_diffs, check_guidance, check_sequence
from planner.compile.plan import (
    Branch,
    Column,
    Estimate,
    Op,
    OpKind,
    Placement,
    Program,
    Reason,
    Topology,
)
from planner.compile.program_check import program_faults
from planner.compile.quantization import resolve_placement
from planner.compile.request import Request, check_request, with_defaults
from planner.compile.rule import column_bounds
from planner.compile.sources import Source, config_sources, request_sources
from planner.compile.topology import resolve_topology
from planner.config.acceleration import AccelerationConfig
from planner.config.document import Document
from planner.config.environment import apply_environment
from planner.config.keys import TOP_LEVEL
from planner.config.load import load
from planner.config.variables import PREFIX
from planner.diagnostics import Diagnostic, Severity, has_errors
from planner.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Compilation:
    """A program with its estimate, or None for both when ``diagnostics`` hold an error.

    ``request`` has every default filled in. ``sources`` say where the values come from that the
    program was made of; none where it was taken as it is. ``layers`` are those of the
    transformers, where the config asks to have them listed.
    """

    program: Program | None
    estimate: Estimate | None
    request: Request
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[Source, ...] = ()
    layers: tuple[QuantizedLayers, ...] = ()


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
    return compile_loaded(source, model, request)


def compile_loaded(source: AccelerationConfig, model: ModelFacts, request: Request) -> Compilation:
    """The same for a config that was loaded, with the faults that were found in it."""
    asked = request
    if request.num_inference_steps is None and source.cache is not None:
        request = replace(request, num_inference_steps=source.cache.num_inference_steps)
    request = with_defaults(request, model)
    check_request(source, model, request)
    # What a faulty section or request would compute is not worth diagnosing.
    faulty = _faulty_sections(source)
    topology, placement, attention_backend = Topology(), Placement(), ""
    if "parallelism_config" not in faulty:
        topology = resolve_topology(source, model, request.world_size)
        check_sequence(source, model, topology, request)
        check_guidance(source, model, topology, request)
    if "quantize_config" not in faulty:
        placement = resolve_placement(source, model)
    if not faulty & {"parallelism_config", "attention_backend"}:
        rows = model.guidance.batch(request.guidance_scale, negative_prompt=request.negative_prompt)
        attention_backend = resolve_attention_backend(source, model, topology, rows=rows)
    if request.device is not None and not faulty:
        check_device(source, attention_backend, request.device)
    if request.dtype is not None and not faulty:
        check_dtype(source, request.dtype)
    columns, steps = ((), ()) if "cache_config" in faulty else _columns(source, model, request)
    check_diffs(source, topology, columns, steps)
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
    layers = _layers(program, model) if source.quantize and source.quantize.verbose else ()
    return replace(finished, sources=sources, layers=layers)


def _layers(program: Program, model: ModelFacts) -> tuple[QuantizedLayers, ...]:
    """What becomes of the layers of every transformer, as far as they are known."""
    tp_size = program.topology.tp_size
    return tuple(
        each
        for target, shape in zip(program.model.targets, model.shapes, strict=False)
        for each in quantized_layers(target, shape, program.placement, tp_size=tp_size)
    )


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


def _faulty_sections(source: AccelerationConfig) -> set[str]:
    """The sections with an error; all of them if it is in none."""
    found: set[str] = set()
    for each in source.diagnostics:
        if each.severity is Severity.ERROR:
            section = each.field.split(".")[0]
            section = "cache_config" if section.startswith(PREFIX) else section
            found |= {section} if section in TOP_LEVEL else set(TOP_LEVEL)
    return found


def in_dtype(compilation: Compilation, model: ModelFacts, dtype: str) -> Compilation:
    """A compilation with the estimate of executors whose transformers have that dtype."""
    if compilation.program is None:
        return compilation
    request = replace(compilation.request, dtype=dtype)
    estimate = _estimate(compilation.program, model, request)
    return replace(compilation, estimate=estimate, request=request)


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
    columns = []
    for target in model.architecture.targets:
        own = model.steps_of(target.name, steps)
        ops = tuple(full if i in own else None for i in range(steps))
        columns += [
            (Column(target.name, branch, group.block_lists), ops)
            for branch in branches
            for group in model.groups
            if group.target == target.name
        ]
    return columns


def _finished(
    source: AccelerationConfig, program: Program, model: ModelFacts, request: Request
) -> Compilation:
    estimate = _estimate(program, model, request)
    world_size = program.topology.world_size
    return Compilation(program, estimate, replace(request, world_size=world_size), _ordered(source))


def _estimate(program: Program, model: ModelFacts, request: Request) -> Estimate:
    by_column = column_bounds(program)
    by_target = [
        _target_bounds(program, target.name, by_column) for target in program.model.targets
    ]
    # Targets do not share steps.
    return Estimate(
        min_computed_steps=sum(each.min_computed for each in by_target),
        max_computed_steps=sum(each.max_computed for each in by_target),
        cost=estimate_cost(program, model, request, by_column),
    )


def _target_bounds(program: Program, target: str, by_column: list[Bounds]) -> Bounds:
    """Of the steps in which at least one column of a target computes every block.

    Exact where the columns follow one rule or are decided; columns of a record may differ.
    """
    own = [c for c, column in enumerate(program.columns) if column.target == target]
    steps = [{op.kind for c in own if (op := step[c])} for step in program.steps]
    return Bounds(
        min_computed=max(
            [
                sum(OpKind.FULL in kinds for kinds in steps),
                *(by_column[c].min_computed for c in own),
            ]
        ),
        max_computed=sum(not kinds <= {OpKind.CACHED} for kinds in steps),
    )


def _failed(source: AccelerationConfig, request: Request) -> Compilation:
    return Compilation(None, None, request, _ordered(source))


def _ordered(source: AccelerationConfig) -> tuple[Diagnostic, ...]:
    return tuple(sorted(source.diagnostics, key=lambda d: (d.line, d.column)))
