"""Hand-made compilations: what is rendered here depends on no compiler."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.compiler import Compilation
from planner.compile.cost import ColumnCost, Cost, ExchangeCost
from planner.compile.plan import (
    AdaptiveRule,
    Branch,
    Calibrator,
    Column,
    Estimate,
    Op,
    OpKind,
    Placement,
    Program,
    Reason,
    TaylorSeer,
    Topology,
)
from planner.compile.request import Request
from planner.models.facts import Architecture, BlockList, Target
from planner.models.resolve import from_name

WARMUP = Op(OpKind.FULL, Reason.WARMUP)
MASKED = Op(OpKind.FULL, Reason.SCM_COMPUTE)
CACHED = Op(OpKind.CACHED, Reason.SCM_CACHE)
ADAPTIVE = Op(OpKind.ADAPTIVE, Reason.DBCACHE, AdaptiveRule(0.12, max_continuous_cached_steps=2))


def _adaptive_flux(steps: int) -> Compilation:
    """Warm-up at 0, 2, 4, 6; everything else adaptive."""
    column = Column(
        "transformer",
        Branch.COND,
        ("transformer_blocks", "single_transformer_blocks"),
        fn_compute_blocks=1,
        calibrator=Calibrator(forecast=TaylorSeer(1)),
    )
    ops = [(WARMUP if i in (0, 2, 4, 6) else ADAPTIVE,) for i in range(steps)]
    model = from_name("black-forest-labs/FLUX.1-dev").architecture
    return Compilation(
        Program(model, (column,), tuple(ops)),
        Estimate(min_computed_steps=11, max_computed_steps=steps),
        Request(steps, 1, 1024, 1024, 3.5),
        (),
    )


@pytest.fixture
def flux() -> Compilation:
    return _adaptive_flux(28)


@pytest.fixture
def costly_flux(flux: Compilation) -> Compilation:
    """On 8 ranks, with numbers that tell apart where they went."""
    assert flux.program is not None
    cost = Cost(
        columns=(ColumnCost(59 * 10**12, 10**12, 3 << 30),),
        step_flops=60 * 10**12,
        full_flops=1680 * 10**12,
        min_flops=700 * 10**12,
        max_flops=1680 * 10**12,
        parameter_bytes=22 << 30,
        activation_bytes=1 << 29,
        cache_bytes=3 << 30,
        exchanges=(
            ExchangeCost("all_gather", "sequence", 4 << 20, 28, 112 << 20, 28, 112 << 20),
            ExchangeCost("all_reduce", "tp", 7 << 20, 70, 77 << 20, 196, 196 << 20),
            ExchangeCost("all_to_all", "ulysses", 5 << 20, 110, 55 << 20, 280, 140 << 20),
            ExchangeCost("decision", "branch", 0, 0, 0, 24, 576),
            ExchangeCost("send_recv", "ring", 6 << 20, 55, 66 << 20, 140, 168 << 20),
        ),
        dtype="bfloat16",
    )
    return replace(
        flux,
        program=replace(flux.program, topology=Topology(8, 2, 2, 2)),
        estimate=Estimate(11, 28, cost),
    )


@pytest.fixture
def long_flux() -> Compilation:
    return _adaptive_flux(130)


@pytest.fixture
def expert_pair() -> Compilation:
    """Two targets that share the steps, both branches, the first with two block groups."""
    lists = (BlockList("double", 4), BlockList("single", 6))
    targets = (
        Target("transformer", "T", lists, 8, 16),
        Target("transformer_2", "T", (BlockList("blocks", 5),), 8, 16),
    )
    groups = (("transformer", "double"), ("transformer", "single"), ("transformer_2", "blocks"))
    columns = tuple(
        Column(target, branch, (group,), fn_compute_blocks=1, bn_compute_blocks=2)
        for target, group in groups
        for branch in Branch
    )
    first = Op(OpKind.FULL, Reason.WARMUP, refresh=True)
    steps = (
        (first, first, first, first, None, None),
        (CACHED, CACHED, MASKED, MASKED, None, None),
        (None, None, None, None, WARMUP, WARMUP),
        (None, None, None, None, CACHED, CACHED),
    )
    program = Program(
        Architecture("twin", "TwinPipeline", targets),
        columns,
        steps,
        Topology(world_size=4, ulysses_size=2, tp_size=2, extra_parallel_modules=("vae",)),
        Placement("float8_per_row", ("embed",)),
        attention_backend="native",
    )
    return Compilation(program, Estimate(3, 3), Request(4, 4, 64, 64, None), ())
