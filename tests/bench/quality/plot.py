"""A report as a picture: quality against speed, one series for each way to save work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#1f2328", "#656d76"
SERIES = {
    "diffusers": {"label": "fewer steps, uncached", "color": FAINT, "marker": "s", "ls": "--"},
    "cache-dit": {"label": "cache-dit 1.5.3", "color": "#d1742f", "marker": "o", "ls": "none"},
    "ditplan": {"label": "ditplan", "color": "#0969da", "marker": "x", "ls": "none"},
}


def plot(report: dict[str, Any], path: Path) -> None:
    """Writes a PNG."""
    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for engine, style in SERIES.items():
        rows = [r for r in report["rows"] if r["engine"] == engine and r["psnr_mean"] is not None]
        if not rows:
            continue
        x, y = [r["speed_up"] for r in rows], [r["psnr_mean"] for r in rows]
        axes.plot(x, y, ms=8, mew=1.8, mfc="none", lw=1.2, **style)
        if engine != "cache-dit":
            for row in rows:
                at = (row["speed_up"], row["psnr_mean"])
                axes.annotate(row["setting"], at, (7, 5), textcoords="offset points", fontsize=7)
    axes.set_xlabel("speed-up against 28 uncached steps")
    axes.set_ylabel("PSNR to the uncached picture, dB")
    axes.grid(color="#eaeef2")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    figure.savefig(path)
