"""What compiling takes as something grows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from tests.bench.calls import cpu_milliseconds
from tests.bench.growth.curve import Curve, says
from tests.bench.inputs import CONFIG
from tests.bench.report import Plot

WARM_UP = 8


def compile_plot(
    title: str,
    model: str,
    counts: tuple[int, ...],
    thing: str,
    compiles: Sequence[Callable[[], object]],
    runs: int,
) -> Plot:
    """One compile for every count of things, which has so many; the model's name is for the eye."""
    cpu_milliseconds(compiles[0], WARM_UP)
    times = tuple(statistics.median(cpu_milliseconds(each, runs)) for each in compiles)
    curve = Curve(counts, times, f"{thing}s", thing)
    return Plot(
        f"growth-{thing}s-compile",
        title,
        f"{thing}s",
        "ms",
        (curve.series(f"compile {CONFIG.name}, {model}"),),
        says("Compiling", curve),
        log=True,
    )
