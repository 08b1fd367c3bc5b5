"""Ranks that share the weights of every block compute what one process computes."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.tensor import split_tensors
from executor.parallel.wire import Collective, Group, Ledger
from planner.compile import plan
from planner.compile.exchange import Rank
from planner.compile.forward import ForwardCost, forward_cost
from planner.models.layers import TokenCounts
from tests.executor.parallel.tiny_forwards import BATCH, FORWARDS
from tests.executor.rank_farm import RankFarm

# Of these models; summing in another order is all that differs.
EXACT = 5e-6
SIZES = (2, 4)


def apart(size: int) -> Group:
    """The group of the first of so many ranks, which can split but not sum."""
    return Group("tp", range(size), 0, None, Ledger())


def tp_group(world: World, size: int) -> Group:
    ulysses = world.size // size
    return world.mesh(Topology(world.size, ulysses_size=ulysses, tp_size=size)).tp


def relative(output: Tensor, expected: Tensor) -> float:
    return ((output - expected).abs().max() / expected.abs().max()).item()


def rms(difference: Tensor) -> float:
    return difference.float().square().mean().sqrt().item()


def held_bytes(model: nn.Module) -> int:
    """What the parameters keep alive, which is more than they have where they are views."""
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    return sum(storage.nbytes() for storage in storages.values())


def _split(world: World, family: str) -> dict[int, dict[str, Any]]:
    """What every size of group gives, by size."""
    tiny = FORWARDS[family]
    expected = tiny(tiny.build())
    rounded = tiny.build(torch.bfloat16)
    in_bf16, in_full = tiny(rounded), tiny(rounded.float())
    found = {}
    for size in SIZES:
        group = tp_group(world, size)
        model = tiny.build()
        split_tensors(model, group)
        before = dict(world.ledger.counts)
        output = tiny(model)
        counted = world.ledger.since(before)
        narrow = tiny.build(torch.bfloat16)
        split_tensors(narrow, group)
        found[size] = {
            "relative": relative(output, expected),
            "counted": counted,
            "bytes": held_bytes(model),
            "bf16": rms(tiny(narrow) - in_full) / rms(in_bf16 - in_full),
        }
    return found


def planned(family: str, size: int) -> ForwardCost:
    tiny = FORWARDS[family]
    tokens = TokenCounts(**{"prompt": 0, **tiny.tokens})
    rank = Rank(tokens, plan.Topology(world_size=size, tp_size=size), BATCH, 4)
    return forward_cost(tiny.facts, rank, plan.Placement())


@pytest.mark.parametrize("family", FORWARDS)
def test_a_split_transformer_computes_what_the_whole_one_does(
    rank_farm: RankFarm, family: str
) -> None:
    for found in rank_farm.run(max(SIZES), _split, family):
        for size in SIZES:
            assert found[size]["relative"] < EXACT
            # Of N results, each rounded, the sum of a row-split layer has N times the variance of
            # one rounding: so has, at most, everything.
            assert found[size]["bf16"] < sqrt(size)
            groups = planned(family, size).groups.values()
            (counts,) = found[size]["counted"].items()
            assert counts[0] == (Collective.ALL_REDUCE, "tp")
            assert counts[1].calls == sum(group.all_reduces for group in groups)
            assert counts[1].bytes == sum(group.all_reduce_bytes for group in groups)
            assert found[size]["bytes"] == planned(family, size).parameter_bytes
