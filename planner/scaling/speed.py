"""How long a run will take, from what runs like it took: pure.

A run's time is its FLOPs by the seconds per FLOP of the runs that were most like it. "Like" is of
the same needs (model, placement, ranks), at about the same size and with about the same share of
computed blocks: both decide how well a device is used. The median of a few keeps one slow run
from telling of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from statistics import median

from ditplan.v1 import plan_pb2

from planner.store.values import Finished, Load

ASSUMED_FLOPS = 1e14
"""A second, of an executor of which no run is known: a GPU of a data centre."""
ASSUMED_STEP_SECONDS = 1.0
"""Where no FLOPs are known either."""
_ALIKE = 5
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Observation:
    """A run as it was: FLOPs that it computed, and its time from prompt to picture.

    ``position``: where its FLOPs lie from the fewest (0) to the most (1) that its plan could take;
    None where these are the same.
    """

    load: Load
    flops: float
    seconds: float
    position: float | None = field(init=False)
    shape: tuple[float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        least, most = self.load.min_flops, self.load.max_flops
        position = (self.flops - least) / (most - least) if most > least else None
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "shape", _shape(self.load, self.flops))


def observed(run: Finished) -> Observation | None:
    """None where it says nothing about speed."""
    flops = _computed(run) if run.load.step_flops else float(run.load.step_count)
    seconds = run.record.total_seconds
    return Observation(run.load, flops, seconds) if flops > 0 < seconds else None


def predicted_seconds(load: Load, runs: Sequence[Observation]) -> float:
    """Of a whole run. ``runs``: the newest first, of its needs or else of its model."""
    alike = [run for run in runs if bool(run.load.step_flops) == bool(load.step_flops)]
    flops = _expected(load, alike)
    if not alike:
        return flops / ASSUMED_FLOPS if load.step_flops else flops * ASSUMED_STEP_SECONDS
    own = _shape(load, flops)
    nearest = nsmallest(_ALIKE, alike, lambda run: math.dist(own, run.shape))
    return flops * median(run.seconds / run.flops for run in nearest)


def _expected(load: Load, runs: Sequence[Observation]) -> float:
    """FLOPs of a run; what an adaptive plan comes to is taken from its own last runs, if any."""
    if not load.step_flops:
        return float(load.step_count)
    if load.max_flops <= load.min_flops:
        return load.max_flops
    adaptive = [run for run in runs if run.position is not None]
    own = [run for run in adaptive if run.load.plan_id == load.plan_id]
    position = median([run.position or 0.0 for run in (own or adaptive)[:_ALIKE]] or [_HALF])
    return load.min_flops + position * (load.max_flops - load.min_flops)


def _shape(load: Load, flops: float) -> tuple[float, float, float]:
    """Size, share of computed blocks and steps, in tenths: among equals the newest are nearest.

    Steps count for less: what a run takes beside them (encoders, decoder) is its smaller part.
    """
    steps = round(math.log(load.step_count) / 4, 1)
    if not load.step_flops:
        return 0.0, 0.0, steps
    return (
        round(math.log1p(load.step_flops), 1),
        round(math.log1p(flops / load.step_count), 1),
        steps,
    )


def _computed(run: Finished) -> float:
    """FLOPs of what was executed: everything but what cached ops saved."""
    return run.cost.full_flops - sum(
        column.full_flops - column.cached_flops
        for step in run.record.steps
        for column, op in zip(run.cost.columns, step.ops, strict=True)
        if op.kind == plan_pb2.OP_KIND_CACHED
    )
