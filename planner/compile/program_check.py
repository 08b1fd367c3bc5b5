"""Checks a program that no compilation of this process made: a replay, a stored plan."""

from __future__ import annotations

import math
from collections.abc import Iterator

from planner.compile.plan import Column, OpKind, Program
from planner.config.document import Path
from planner.models.facts import ModelFacts


def program_faults(
    program: Program, model: ModelFacts, world_size: int
) -> Iterator[tuple[Path, str]]:
    """What keeps the program from running on so many ranks: path below the program, message."""
    if program.model != model.architecture:
        yield ("model",), "the program is for another model architecture"
        return
    topology = program.topology
    sizes = (topology.ring_size, topology.ulysses_size, topology.tp_size)
    if min(sizes) < 1 or math.prod(sizes) != topology.world_size:
        yield ("topology",), f"sizes {sizes} do not multiply to {topology.world_size} ranks"
    elif topology.world_size != world_size:
        yield (
            ("topology", "world_size"),
            f"the program is for {topology.world_size} ranks, not {world_size}",
        )
    expected = [(group.target, group.block_lists) for group in model.groups]
    columns = [(column.target, column.block_lists) for column in program.columns]
    if sorted(columns) != sorted(expected):
        yield ("columns",), f"they are for the block groups {columns}, the model has {expected}"
        return
    for c, column in enumerate(program.columns):
        yield from _column_faults(program, c, column)


def _column_faults(program: Program, c: int, column: Column) -> Iterator[tuple[Path, str]]:
    blocks = program.model.target(column.target).num_blocks(column.block_lists)
    fn, bn = column.fn_compute_blocks, column.bn_compute_blocks
    if fn + bn > blocks:
        yield ("columns", c), f"Fn {fn} + Bn {bn} exceed the {blocks} blocks of {column.group}"
    computed = False
    for i, step in enumerate(program.steps):
        op, path = step[c], ("steps", i, "ops", c)
        if op is None:
            yield path, f"nothing is said about {column.group}"
            return
        if op.kind is OpKind.FULL:
            computed = True
        elif op.refresh or not computed:
            yield path, f"{op.kind.value} with nothing computed before it"
            return
        elif column.calibrator is None or fn < 1:
            yield path, f"{op.kind.value} in a column without a cache"
            return
