"""Ranks that share quantized weights, or tokens under quantized weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from executor.engine import run as engine
from executor.engine.program import Branch, Calibrator, Column, Op, OpKind, Program, Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from executor.placement.load import load
from executor.placement.quantization import NOTHING, Quantization
from executor.placement.split import Share
from tests.executor.parallel.shared_runs import relative
from tests.executor.rank_farm import RankFarm

LISTS = ("transformer_blocks", "single_transformer_blocks")
SPEC = engine.RunSpec("a red cat", 32, 32, 7, 3.5)
KINDS = ("int8_weight_only", "int8_per_row", "float8_weight_only")
ERROR = 0.05


def _program(topology: Topology) -> Program:
    kinds = (OpKind.FULL, OpKind.CACHED, OpKind.FULL, OpKind.CACHED)
    column = Column("transformer", Branch.COND, LISTS, 1, 1, Calibrator())
    return Program((column,), tuple((Op(kind),) for kind in kinds), topology)


def draw(world: World, model: str, kind: str, topology: Topology) -> Tensor:
    """The latents of a run, as every rank has them."""
    share = Share(world.rank, world.size, topology.tp_size)
    loaded = load(model, share=share, quantization=Quantization(kind) if kind else NOTHING)
    share.connect(loaded.pipeline, world.mesh(topology))
    sharing = Sharing(world, topology)
    return engine.run(loaded.pipeline, _program(topology), SPEC, sharing=sharing).latents


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_draw_nearly_what_one_rank_draws(
    rank_farm: RankFarm, checkpoint: Path, kind: str
) -> None:
    def alone(quantization: Quantization) -> Tensor:
        loaded = load(str(checkpoint), quantization=quantization)
        return engine.run(loaded.pipeline, _program(Topology()), SPEC).latents

    plain, quantized = alone(NOTHING), alone(Quantization(kind))
    assert 1e-5 < relative(quantized, plain) < ERROR
    tokens = Topology(2, ulysses_size=2)
    for latents in rank_farm.run(2, draw, str(checkpoint), kind, tokens):
        # The weights are whole, and so are the rows of tokens that have a scale of their own.
        bound = ERROR / 2 if kind == "int8_per_row" else 1e-5
        assert relative(latents, quantized) < bound
    # Each part of the weights has scales of its own.
    first, second = rank_farm.run(2, draw, str(checkpoint), kind, Topology(2, tp_size=2))
    assert (first == second).all()
    assert relative(first, plain) < ERROR
