"""Checks a program that no compilation of this process made: a replay, a stored plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, get_args

from pydantic import ValidationError

from planner.compile.attention import resolve_attention_backend
from planner.compile.mesh_checks import waiting_column
from planner.compile.plan import (
    Branch,
    Calibrator,
    Column,
    Dmd,
    OpKind,
    Placement,
    Program,
    TaylorSeer,
    Topology,
)
from planner.compile.topology import resolve_topology
from planner.config.acceleration import AccelerationConfig
from planner.config.attention import AttentionBackend
from planner.config.document import Document, Path
from planner.config.schema import CacheConfig, ParallelismConfig, QuantizeConfig, Section
from planner.models.components import component_names
from planner.models.facts import ModelFacts


def program_faults(
    program: Program, model: ModelFacts, world_size: int
) -> Iterator[tuple[Path, str]]:
    """What keeps the program from running on so many ranks: path below the program, message."""
    if program.model != model.architecture:
        yield ("model",), "the program is for another model architecture"
        return
    yield from _topology_faults(program.topology, model, world_size)
    yield from _placement_faults(program.placement, model)
    yield from _attention_faults(program, model)
    expected = sorted((group.target, group.block_lists) for group in model.groups)
    for branch in dict.fromkeys([Branch.COND, *(column.branch for column in program.columns)]):
        columns = sorted((c.target, c.block_lists) for c in program.columns if c.branch is branch)
        if columns != expected:
            found = f"the {branch.value} branch has the block groups {columns}"
            yield ("columns",), f"{found}, the model {expected}"
            return
    if program.topology.guidance_size > 1:
        yield from _guidance_faults(program)
    for c, column in enumerate(program.columns):
        yield from _column_faults(program, model, c, column)


def _topology_faults(
    topology: Topology, model: ModelFacts, world_size: int
) -> Iterator[tuple[Path, str]]:
    """A mesh that runs is one that a config with its sizes and flags compiles to."""
    if topology.world_size != world_size:
        yield (
            ("topology", "world_size"),
            f"the program is for {topology.world_size} ranks, not {world_size}",
        )
    if topology == Topology():
        return
    values = asdict(topology)
    del values["world_size"]
    values["extra_parallel_modules"] = list(topology.extra_parallel_modules)
    faults = list(_range_faults(ParallelismConfig, values))
    if not faults:
        config = AccelerationConfig(Document(None), parallelism=ParallelismConfig(**values))
        resolve_topology(config, model, topology.world_size)
        faults = [((), found.message) for found in config.diagnostics]
    for path, message in faults:
        yield ("topology", *path), message


def _guidance_faults(program: Program) -> Iterator[tuple[Path, str]]:
    """Half of the ranks run one branch, which waits for nothing of the other."""
    if {column.branch for column in program.columns} != set(Branch):
        yield ("topology", "guidance_size"), "the program has one forward a step"
    waiting = waiting_column(program.columns, program.steps)
    if waiting is not None:
        yield ("columns", waiting), "takes the residual diff of a branch that other ranks run"


def _attention_faults(program: Program, model: ModelFacts) -> Iterator[tuple[Path, str]]:
    backend = program.attention_backend
    if not backend:
        return
    if backend not in get_args(AttentionBackend):
        yield ("attention_backend",), f"{backend[:60]!r} is not allowed"
        return
    config = AccelerationConfig(Document(None), attention_backend=backend)
    resolve_attention_backend(config, model, program.topology)
    for found in config.diagnostics:
        yield ("attention_backend",), found.message


def _placement_faults(placement: Placement, model: ModelFacts) -> Iterator[tuple[Path, str]]:
    values: dict[str, Any] = {"exclude_layers": list(placement.exclude_layers)}
    if placement.quant_type:
        values["quant_type"] = placement.quant_type
    elif placement.exclude_layers:
        yield ("placement", "exclude_layers"), "layers are excluded from no quantization"
    names = [each.name for each in placement.components]
    for name in names:
        if name not in component_names(model.architecture):
            yield ("placement", "components"), f"this model has no {name}"
    if names:
        values["components_to_quantize"] = {
            each.name: {
                "quant_type": each.quant_type,
                "exclude_layers": list(each.exclude_layers),
            }
            for each in placement.components
        }
        if placement.quant_type or names != sorted(set(names)):
            yield ("placement", "components"), "not in the form that a compiler writes"
    parts = [rule.part for rule in placement.precision]
    if parts:
        values["precision_plan"] = {rule.part: rule.quant_type for rule in placement.precision}
        if parts != sorted(set(parts)) or not (names or placement.quant_type):
            yield ("placement", "precision"), "not in the form that a compiler writes"
    for path, message in _range_faults(QuantizeConfig, values):
        yield ("placement", *path), message


def _column_faults(
    program: Program, model: ModelFacts, c: int, column: Column
) -> Iterator[tuple[Path, str]]:
    blocks = program.model.target(column.target).num_blocks(column.block_lists)
    fn, bn = column.fn_compute_blocks, column.bn_compute_blocks
    if fn + bn > blocks:
        yield ("columns", c), f"Fn {fn} + Bn {bn} exceed the {blocks} blocks of {column.group}"
    for key, message in _range_faults(CacheConfig, _forecast_keys(column.calibrator)):
        yield ("columns", c, "calibrator", *key), message
    computed = False
    own = model.steps_of(column.target, program.num_inference_steps)
    for i, step in enumerate(program.steps):
        op, path = step[c], ("steps", i, "ops", c)
        if (op is None) == (i in own):
            verb = "nothing is said about" if op is None else "there is no forward of"
            yield path, f"{verb} {column.group}"
            return
        if op is None:
            continue
        if op.kind is OpKind.FULL:
            computed = True
        elif op.refresh or not computed:
            yield path, f"{op.kind.value} with nothing computed before it"
            return
        elif column.calibrator is None or fn < 1:
            yield path, f"{op.kind.value} in a column without a cache"
            return
        if op.adaptive is not None:
            limit = op.adaptive.max_accumulated_residual_diff_threshold
            if not math.isfinite(op.adaptive.residual_diff_threshold):
                yield path, "the threshold is no number"
                return
            if limit is not None and not 0 < limit < math.inf:
                yield path, "the limit of the accumulated residual diff is not above 0"
                return


def _forecast_keys(calibrator: Calibrator | None) -> dict[str, Any]:
    """The forecast as the keys of the YAML, whose ranges are known."""
    match calibrator.forecast if calibrator else None:
        case TaylorSeer(order):
            return {"taylorseer_order": order}
        case Dmd() as dmd:
            return {f"dmd_{key}": value for key, value in asdict(dmd).items()}
        case _:
            return {}


def _range_faults(section: type[Section], values: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    try:
        section.model_validate(values)
    except ValidationError as error:
        for key in dict.fromkeys(str(fault["loc"][0]) for fault in error.errors()):
            yield (key,), f"{values[key]!r} is not allowed"
