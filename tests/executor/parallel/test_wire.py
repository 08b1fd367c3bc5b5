"""Groups of a mesh exchange what they should, and every exchange is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.wire import Collective, Count, share_of, shares
from tests.executor.rank_farm import RankFarm


def test_shares_are_even_and_the_first_ranks_get_one_more() -> None:
    assert shares(8, 4) == [2, 2, 2, 2]
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(1, 3) == [1, 0, 0]
    parts = [share_of(torch.arange(10), 0, shares(10, 4), rank) for rank in range(4)]
    assert torch.cat(parts).tolist() == list(range(10))


def _groups(world: World) -> dict[str, tuple[int, ...]]:
    mesh = world.mesh(Topology(8, ring_size=2, ulysses_size=2, tp_size=2))
    groups = (mesh.ring, mesh.ulysses, mesh.tp, mesh.sequence, mesh.branch, mesh.model)
    return {group.name: group.ranks for group in groups}


def _groups_of_halves(world: World) -> dict[str, tuple[int, ...]]:
    mesh = world.mesh(Topology(8, guidance_size=2, ulysses_size=2, tp_size=2))
    groups = (mesh.guidance, mesh.ulysses, mesh.tp, mesh.sequence, mesh.branch, mesh.model)
    return {group.name: group.ranks for group in groups}


def test_halves_are_the_outermost_axis(rank_farm: RankFarm) -> None:
    groups = rank_farm.run(8, _groups_of_halves)
    assert groups[0] == {
        "guidance": (0, 4),
        "ulysses": (0, 2),
        "tp": (0, 1),
        "sequence": (0, 2),
        "branch": (0, 1, 2, 3),
        "model": tuple(range(8)),
    }
    assert groups[7] == {
        "guidance": (3, 7),
        "ulysses": (5, 7),
        "tp": (6, 7),
        "sequence": (5, 7),
        "branch": (4, 5, 6, 7),
        "model": tuple(range(8)),
    }


def test_a_mesh_is_row_major_in_ring_ulysses_tp(rank_farm: RankFarm) -> None:
    groups = rank_farm.run(8, _groups)
    assert groups[0] == {
        "ring": (0, 4),
        "ulysses": (0, 2),
        "tp": (0, 1),
        "sequence": (0, 2, 4, 6),
        "branch": tuple(range(8)),
        "model": tuple(range(8)),
    }
    assert groups[7]["ring"] == (3, 7)
    assert groups[7]["ulysses"] == (5, 7)
    assert groups[7]["tp"] == (6, 7)
    assert groups[7]["sequence"] == (1, 3, 5, 7)


def _exchange(world: World) -> dict[str, Any]:
    mesh = world.mesh(Topology(3, ulysses_size=3))
    group, mine = mesh.ulysses, float(mesh.ulysses.index)
    # Rank r sends r + 1 values to every rank.
    send = torch.full((3 * (group.index + 1),), mine)
    received, wait = group.all_to_all(send, 3 * [group.index + 1], [1, 2, 3])
    wait()
    rotated, wait = group.rotate(torch.full((group.index + 1,), mine), (group.index - 1) % 3 + 1)
    wait()
    return {
        "all_to_all": received.tolist(),
        "rotate": rotated.tolist(),
        "all_gather": group.all_gather(torch.tensor([mine])).flatten().tolist(),
        "all_reduce": group.all_reduce(torch.tensor([mine])).item(),
        "alone": mesh.ring.all_reduce(torch.tensor([mine])).item(),
        "counts": world.ledger.counts,
    }


def test_exchanges_of_uneven_shares_are_counted(rank_farm: RankFarm) -> None:
    first, _, last = rank_farm.run(3, _exchange)
    assert first["all_to_all"] == last["all_to_all"] == [0, 1, 1, 2, 2, 2]
    assert first["rotate"] == [2, 2, 2]
    assert last["rotate"] == [1, 1]
    assert first["all_gather"] == [0, 1, 2]
    assert first["all_reduce"] == 3
    assert last["alone"] == 2
    assert first["counts"] == {
        (Collective.ALL_TO_ALL, "ulysses"): Count(1, 2 * 4),
        (Collective.SEND_RECV, "ulysses"): Count(1, 4),
        (Collective.ALL_GATHER, "ulysses"): Count(1, 2 * 4),
        (Collective.ALL_REDUCE, "ulysses"): Count(1, 4),
    }
    assert last["counts"][Collective.ALL_TO_ALL, "ulysses"] == Count(1, 2 * 3 * 4)


def _raise_on_one(world: World) -> None:
    mesh = world.mesh(Topology(2, ulysses_size=2))
    if world.rank == 1:
        raise ValueError("rank 1 has had enough")
    mesh.ulysses.all_reduce(torch.ones(1))


def test_a_rank_that_raises_lets_go_of_the_others(rank_farm: RankFarm) -> None:
    with pytest.raises(Exception, match="rank 1 has had enough"):
        rank_farm.run(2, _raise_on_one)
    assert rank_farm.run(2, _rank) == [0, 1]


def _rank(world: World) -> int:
    return world.rank
