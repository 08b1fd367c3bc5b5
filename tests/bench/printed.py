"""Findings on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from tests.bench.report import Findings, Plot, Table

WIDTH = 190
"""Columns at least, also where the output is no terminal."""


def console() -> Console:
    found = Console(highlight=False)
    found.width = max(found.width, WIDTH)
    return found


def show(findings: Findings, to: Console) -> None:
    to.rule(f"[bold]{findings.title}", align="left")
    to.print(findings.method, markup=False)
    for table in findings.tables:
        to.print(_grid(table))
        if table.note:
            to.print(table.note, markup=False)
    for plot in findings.plots:
        to.print(f"\n{plot.title}: {plot.says}", markup=False)
        to.print(_points(plot))


def _grid(table: Table) -> Grid:
    grid = Grid(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(table.headings):
        grid.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for row in table.rows:
        grid.add_row(*map(str, row))
    return grid


def _points(plot: Plot) -> Grid:
    """The numbers that are drawn; of points with names these, else those of x."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", plot.x, plot.y):
        grid.add_column(heading, justify="left" if not heading else "right")
    for series in plot.series:
        for number, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            name = series.names[number] if series.names else ""
            label = ", ".join(filter(None, (series.label, series.kind, name)))
            grid.add_row(label, f"{x:.4g}", f"{y:.4g}")
    return grid
