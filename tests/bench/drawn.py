"""Plots as SVG."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tests.bench.report import Plot, Series

INK, GRID = "#1f2328", "#eaeef2"
COLOURS = {"ditplan": "#0969da", "cache-dit": "#e16f24", "diffusers": "#656d76"}
OTHERS = ("#1a7f37", "#8250df", "#bf3989", "#0969da", "#e16f24")
MARKERS = ("o", "D", "^", "s", "*", "v", "P", "X")

# The same report gives the same bytes; text stays text.
mpl.rcParams |= {"svg.hashsalt": "ditplan", "svg.fonttype": "none", "font.family": "sans-serif"}


def draw(plot: Plot, folder: Path) -> Path:
    """Writes ``NAME.svg`` into a folder that exists."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    FigureCanvasSVG(figure)
    figure.set_facecolor("white")
    axes = figure.add_subplot()
    colours, markers = _colours(plot), _markers(plot)
    for series in plot.series:
        _line(axes, series, colours[series.label], markers[series.kind])
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
    keys = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    for kind, marker in markers.items():
        if kind:
            keys.append(Line2D([], [], color=INK, marker=marker, mfc="white", ls="", label=kind))
    axes.legend(handles=keys, frameon=False, fontsize=9)
    path = folder / f"{plot.name}.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def _colours(plot: Plot) -> dict[str, str]:
    labels = dict.fromkeys(series.label for series in plot.series)
    others = cycle(OTHERS)
    return {label: COLOURS.get(label) or next(others) for label in labels}


def _markers(plot: Plot) -> dict[str, str]:
    kinds = dict.fromkeys(series.kind for series in plot.series)
    return dict(zip(kinds, cycle(MARKERS), strict=False))


def _line(axes: Axes, series: Series, colour: str, marker: str) -> None:
    look = "--" if series.dashed else "-"
    axes.plot(series.x, series.y, color=colour, ls=look, lw=1.2, marker=marker, mfc="white", ms=7)
    below = (-6, -14) if series.dashed else (6, 5)
    for name, at in zip(series.names, zip(series.x, series.y, strict=True), strict=False):
        style = {"fontsize": 7.5, "color": colour, "textcoords": "offset points"}
        axes.annotate(name, at, below, **style)
