"""How cost grows: with steps, with blocks, with what is queued, with watchers."""

from __future__ import annotations

from tests.bench.growth.blocks import by_blocks
from tests.bench.growth.queue import by_queue
from tests.bench.growth.steps import by_steps
from tests.bench.growth.watched_runs import watched_runs
from tests.bench.growth.watchers import by_watchers
from tests.bench.report import Findings

METHOD = (
    "Every point is a median. What compiling and steps take is processor time of the one thread. "
    "The steps are those of FLUX transformers whose blocks do almost nothing, so that what is seen "
    "is the engine's own; plain diffusers and Cache-DiT take turns with it. Queue and watchers are "
    "those of a planner process over sockets; one process on the same cores reads what watchers "
    "are told, and its time is part of the delay."
)


def measure(*, look: bool) -> Findings:
    plots = (
        *by_steps(look=look),
        *by_blocks(look=look),
        *by_queue(look=look),
        *by_watchers(look=look),
        watched_runs(look=look),
    )
    return Findings("Growth", METHOD, plots=plots)
