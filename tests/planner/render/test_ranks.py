"""The rank grid says of every rank which place of the mesh it holds."""

from __future__ import annotations

from itertools import product

import pytest

from planner.compile.plan import Topology
from planner.render.canvas import Canvas
from planner.render.ranks import MAX_DRAWN, rank_formula, rank_grid, render_ranks

MESHES = [
    Topology(halves * ring * ulysses * tp, ring, ulysses, tp, guidance_size=halves)
    for ring, ulysses, tp in product((1, 2, 3, 4, 8, 32, 64), repeat=3)
    for halves in (1, 2)
    if 1 < halves * ring * ulysses * tp <= MAX_DRAWN
]


def sizes(topology: Topology) -> str:
    return (
        f"{topology.guidance_size}x{topology.ring_size}x{topology.ulysses_size}x{topology.tp_size}"
    )


def rank_of(topology: Topology, place: dict[str, int]) -> int:
    """Row-major in the order guidance, ring, ulysses, tp."""
    half, ring, ulysses, tp = (place.get(name, 0) for name in ("guidance", "ring", "ulysses", "tp"))
    ring += half * topology.ring_size
    return (ring * topology.ulysses_size + ulysses) * topology.tp_size + tp


def places(lines: list[str]) -> dict[int, dict[str, int]]:
    """The coordinates of every rank, read off a drawing."""
    found = {}
    header: list[tuple[str, list[int]]] = []
    for line in lines:
        words = line.split()
        if not words:
            header = []
        elif "rank" in words:
            at = words.index("rank")
            row = {words[0]: int(words[1].rstrip(","))} if at else {}
            for i, rank in enumerate(map(int, words[at + 1 :])):
                found[rank] = {name: values[i] for name, values in header} | row
        else:
            header.append((words[0], [int(word) for word in words[1:]]))
    return found


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("topology", MESHES, ids=sizes)
def test_every_rank_stands_at_its_coordinates(topology: Topology, width: int) -> None:
    lines = render_ranks(topology, Canvas(width), indent=11)
    found = places(lines)
    assert sorted(found) == list(range(topology.world_size))
    assert all(rank_of(topology, place) == rank for rank, place in found.items())
    assert len({tuple(place.items()) for place in found.values()}) == topology.world_size
    assert max(map(len, lines)) <= width
    if width == 80:
        assert len(lines) <= (12 if topology.guidance_size == 1 else 17)


def test_a_mesh_reads_like_a_table() -> None:
    assert render_ranks(Topology(8, 2, 2, 2), Canvas(), indent=2) == [
        "       ulysses  0  0  1  1",
        "            tp  0  1  0  1",
        "  ring 0, rank  0  1  2  3",
        "  ring 1, rank  4  5  6  7",
    ]


def test_halves_are_the_outermost_axis() -> None:
    assert render_ranks(Topology(4, ulysses_size=2, guidance_size=2), Canvas(), indent=2) == [
        "           ulysses  0  1",
        "  guidance 0, rank  0  1",
        "  guidance 1, rank  2  3",
    ]


def test_one_axis_is_one_row() -> None:
    grid = rank_grid(Topology(4, 1, 4, 1))
    assert grid is not None
    assert (grid.row_axis, grid.coordinates, grid.ranks) == ("", ((0, 1, 2, 3),), ((0, 1, 2, 3),))


def test_a_large_mesh_is_told_by_how_its_ranks_are_counted() -> None:
    topology = Topology(128, 4, 4, 8)
    assert rank_grid(topology) is None
    assert rank_formula(topology) == "rank = 32 * ring + 8 * ulysses + tp"
    assert render_ranks(topology, Canvas(), indent=2) == ["  rank = 32 * ring + 8 * ulysses + tp"]
