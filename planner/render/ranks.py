"""Which rank holds which coordinates of the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

from planner.compile.plan import Topology
from planner.render.canvas import Canvas

MAX_DRAWN = 64


@dataclass(frozen=True, slots=True)
class RankGrid:
    """Ranks in rows along one axis (none: a single row) and columns along the others.

    ``coordinates`` has one row for every column axis, ``ranks`` one for every place on the row
    axis; all are equally long.
    """

    row_axis: str
    column_axes: tuple[str, ...]
    coordinates: tuple[tuple[int, ...], ...]
    ranks: tuple[tuple[int, ...], ...]

    def bands(self, room: int) -> Iterator[RankGrid]:
        """The grid in parts of at most ``room`` columns, cut where the outermost axis moves on."""
        width = len(self.ranks[0])
        inner = self.coordinates[0].count(0)
        if room >= width:
            step = width
        elif room >= inner > 1:
            bands = ceil(width / (room // inner * inner))
            step = ceil(width / bands / inner) * inner
        else:
            # Where no axis gives a measure, a power of two is easy to count in.
            step = 1 << (room.bit_length() - 1)
        for start in range(0, width, step):
            part = slice(start, start + step)
            yield RankGrid(
                self.row_axis,
                self.column_axes,
                tuple(row[part] for row in self.coordinates),
                tuple(row[part] for row in self.ranks),
            )

    def label(self, row: int) -> str:
        return f"{self.row_axis} {row}, rank" if self.row_axis else "rank"


def rank_grid(topology: Topology) -> RankGrid | None:
    """The grid with its shortest axis down; None for one rank and for more than can be shown."""
    axes = _axes(topology)
    if not axes or topology.world_size > MAX_DRAWN:
        return None
    sizes = {name: size for name, size, _ in axes}
    row_axis = min(sizes, key=sizes.__getitem__) if len(axes) > 1 else ""
    across = [axis for axis in axes if axis[0] != row_axis]
    down = [axis for axis in axes if axis[0] == row_axis]
    columns = list(product(*(range(size) for _, size, _ in across)))
    rows = range(down[0][1]) if down else range(1)
    stride = down[0][2] if down else 0
    return RankGrid(
        row_axis,
        tuple(name for name, _, _ in across),
        tuple(zip(*columns, strict=True)),
        tuple(
            tuple(
                row * stride + sum(at * axis[2] for at, axis in zip(column, across, strict=True))
                for column in columns
            )
            for row in rows
        ),
    )


def rank_formula(topology: Topology) -> str:
    """How a rank follows from its coordinates, e.g. ``rank = 4 * ring + ulysses``."""
    terms = [f"{stride} * {name}" if stride > 1 else name for name, _, stride in _axes(topology)]
    return f"rank = {' + '.join(terms)}"


def render_ranks(topology: Topology, canvas: Canvas, *, indent: int) -> list[str]:
    """The grid of a mesh of several ranks, or how ranks are counted in one that is too large."""
    grid = rank_grid(topology)
    if grid is None:
        margin = " " * indent
        return canvas.wrap(rank_formula(topology), first=margin, rest=margin)
    labels = [*grid.column_axes, *(grid.label(row) for row in range(len(grid.ranks)))]
    left = max(map(len, labels))
    room = canvas.width - indent - left
    digits = len(str(topology.world_size - 1))
    cell = digits + (2 if (digits + 2) * len(grid.ranks[0]) <= room else 1)
    lines: list[str] = []
    for band in grid.bands(max(room // cell, 1)):
        lines += [""] if lines else []
        for number, (label, values) in enumerate(
            zip(labels, (*band.coordinates, *band.ranks), strict=True)
        ):
            numbers = "".join(str(value).rjust(cell) for value in values)
            coordinate = number < len(grid.column_axes)
            shown = canvas.dim(numbers) if coordinate else canvas.paint(numbers, bold=True)
            lines.append(" " * indent + label.rjust(left) + shown)
    return lines


def _axes(topology: Topology) -> list[tuple[str, int, int]]:
    """Name, size and stride of the axes that have several places; the last one moves fastest."""
    axes: list[tuple[str, int, int]] = []
    stride = 1
    for name in ("tp", "ulysses", "ring", "guidance"):
        size = getattr(topology, f"{name}_size")
        axes.insert(0, (name, size, stride))
        stride *= size
    return [axis for axis in axes if axis[1] > 1]
