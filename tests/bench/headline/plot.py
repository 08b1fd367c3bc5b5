"""A report as a picture: quality against speed for three ways to save work."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, GRID = "#1f2328", "#eaeef2"
COLOURS = {"diffusers": "#656d76", "cache-dit": "#e16f24", "ditplan": "#0969da"}
ENGINES = {"diffusers": "fewer steps, uncached", "cache-dit": "cache-dit", "ditplan": "ditplan"}
MARKERS = ("o", "D", "^", "s", "*")
"""One for each family of configs, in the order of the report."""


def plot(report: dict[str, Any], path: Path) -> None:
    """Writes a PNG: colours are engines, markers are families of configs."""
    figure = Figure(figsize=(9.5, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = [row for row in report["rows"] if row["psnr_mean"] is not None]
    families = list(dict.fromkeys(row["family"] for row in rows if row["config"]))
    markers = dict(zip(families, cycle(MARKERS), strict=False))
    for engine in ENGINES:
        for family in dict.fromkeys(row["family"] for row in rows):
            found = [row for row in rows if (row["engine"], row["family"]) == (engine, family)]
            if found:
                _line(axes, engine, found, markers.get(family, "."))
    keys = [
        _key(COLOURS[engine], "o", name, mfc=COLOURS[engine]) for engine, name in ENGINES.items()
    ]
    keys += [_key(INK, marker, family) for family, marker in markers.items()]
    axes.legend(handles=keys, frameon=False, fontsize=9, loc="upper right")
    axes.set_xlabel(f"speed-up against {report['steps']} uncached steps, processor time")
    axes.set_ylabel("PSNR to the uncached picture, dB")
    axes.margins(x=0.07)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _line(axes: Axes, engine: str, rows: list[dict[str, Any]], marker: str) -> None:
    x, y = [row["speed_up"] for row in rows], [row["psnr_mean"] for row in rows]
    control = engine == "diffusers"
    look = {"ls": "--", "lw": 1.8, "ms": 9} if control else {"ls": "-", "lw": 1, "ms": 7}
    axes.plot(x, y, color=COLOURS[engine], marker=marker, mfc="white", **look)
    # Where both engines drew a config, its name stands at ditplan's.
    if engine != "cache-dit":
        style = {"fontsize": 7.5, "color": COLOURS[engine], "textcoords": "offset points"}
        for row, at in zip(rows, zip(x, y, strict=True), strict=True):
            axes.annotate(row["name"], at, (-6, -14) if control else (6, 5), **style)


def _key(colour: str, marker: str, label: str, mfc: str = "white") -> Line2D:
    return Line2D([], [], color=colour, marker=marker, ls="none", ms=7, mfc=mfc, label=label)
