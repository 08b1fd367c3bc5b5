"""Plots as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tests.bench.report import Plot, Series

INK, GRID = "#1f2328", "#eaeef2"
COLOURS = ("#0969da", "#e16f24", "#656d76", "#1a7f37", "#8250df")
MARKERS = ("o", "D", "^", "s", "*", ".", "v", "P")

# The same report gives the same bytes; text stays text.
mpl.rcParams |= {"svg.hashsalt": "ditplan", "svg.fonttype": "none", "font.family": "sans-serif"}


def draw(plot: Plot, folder: Path) -> Path:
    """Writes ``NAME.svg`` into a folder that exists."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    FigureCanvasSVG(figure)
    figure.set_facecolor("white")
    axes = figure.add_subplot()
    for series in plot.series:
        _line(axes, series)
    if plot.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        axes.margins(x=0.07)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    path = folder / f"{plot.name}.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def _line(axes: mpl.axes.Axes, series: Series) -> None:
    colour = COLOURS[series.colour % len(COLOURS)]
    axes.plot(
        series.x,
        series.y,
        color=colour,
        ls="--" if series.dashed else "-",
        lw=1.2,
        marker=MARKERS[series.marker % len(MARKERS)],
        mfc="white",
        ms=7,
        label=series.label,
    )
    for name, at in zip(series.names, zip(series.x, series.y, strict=True), strict=False):
        below = (-6, -14) if series.dashed else (6, 5)
        axes.annotate(
            name, at, below, textcoords="offset points", fontsize=7.5, color=colour, zorder=3
        )
