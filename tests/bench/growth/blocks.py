"""What blocks cost: the planner, which counts them, and the engine, which walks them."""

from __future__ import annotations

import statistics
from functools import partial
from itertools import chain

from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import from_configs
from tests.bench.engine.lanes import cache_dit, plain, planned
from tests.bench.engine.rounds import rounds
from tests.bench.growth.compiling import compile_plot
from tests.bench.growth.curve import Curve, points, says
from tests.bench.growth.subjects import near_empty
from tests.bench.inputs import CONFIG, FLUX
from tests.bench.peer import peer
from tests.bench.report import Plot

STEPS = 50
LANES = {
    "plain diffusers": ("diffusers", "computed"),
    "FULL, stores for reuse": ("ditplan", "computed"),
    "CACHED, reuse": ("ditplan", "cached"),
    "cache-dit FULL": ("cache-dit", "computed"),
    "cache-dit CACHED, reuse": ("cache-dit", "cached"),
}
"""Those of the engine's bench: whose they are, and what they do."""


def by_blocks(*, look: bool) -> tuple[Plot, Plot]:
    counts = points(4, 200, 3 if look else 7)
    return compiling(counts, 5 if look else 50), stepping(counts, 5 if look else 40)


def compiling(counts: tuple[int, ...], runs: int) -> Plot:
    text, request = CONFIG.read_text(), Request(STEPS)
    compiles = [partial(compile_config, text, _facts(count), request) for count in counts]
    title = f"Compiling {STEPS} steps by blocks"
    return compile_plot(title, "FLUX", counts, "block", compiles, runs)


def _facts(blocks: int) -> ModelFacts:
    """FLUX.1-dev with so many blocks."""
    configs = dict(NAMED[FLUX])
    first = max(1, blocks // 5)
    sizes = {"num_layers": first, "num_single_layers": blocks - first}
    configs["transformer/config.json"] = configs["transformer/config.json"] | sizes
    return from_configs(configs, name=f"FLUX with {blocks} blocks")


def stepping(counts: tuple[int, ...], rounds_each: int) -> Plot:
    """Milliseconds of a computed and of a cached step."""
    other = peer()
    found: dict[str, list[float]] = {}
    for count in counts:
        subject = near_empty(count, rounds=rounds_each, turn=3)
        theirs = cache_dit(subject) if other else ()
        lanes = [
            lane for lane in chain(plain(subject), planned(subject), theirs) if lane.name in LANES
        ]
        for name, times in rounds(subject, lanes).items():
            found.setdefault(name, []).append(statistics.median(times) / 1e3)
    curves = {name: Curve(counts, tuple(times), "blocks", "block") for name, times in found.items()}
    return Plot(
        "growth-blocks-step",
        "A step by blocks, which do almost nothing",
        "blocks",
        "ms of processor time a step",
        tuple(
            curve.series(*LANES[name], dashed=LANES[name][1] == "cached")
            for name, curve in curves.items()
        ),
        " ".join(says(", ".join(LANES[name]), curve) for name, curve in curves.items()),
        log=True,
    )
