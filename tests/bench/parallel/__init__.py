"""Two ranks: how much faster they are, and what they exchange."""

from __future__ import annotations

from contextlib import ExitStack

from tests.bench.parallel.exchanged import against_estimate, decisions
from tests.bench.parallel.speed import speed_ups
from tests.bench.peer import ABSENT, peer
from tests.bench.report import Findings
from tests.executor.rank_farm import RankFarm

_METHOD = """\
Ranks are processes of one thread, connected by gloo. Forwards are timed by the clock, the faster \
of two on rank 0 in every round, in rounds of all lanes; speed-ups are over one rank within a \
round. Calls and bytes are those that rank 0 counted in real runs; bytes are those that it sends \
to others, or puts into a sum. All-reduces are counted where torch is called, whoever calls it."""


def measure(*, look: bool) -> Findings:
    """Forwards of a transformer that has something to compute, cached runs of the demo model."""
    other = peer()
    with ExitStack() as stack:
        farm, ranks = RankFarm(), RankFarm()
        stack.callback(farm.close)
        # It patches classes, which other runs in the same processes would meet.
        stack.callback(ranks.close)
        found = (
            speed_ups(farm, 1 if look else 9),
            against_estimate(farm),
            decisions(farm, ranks, other),
        )
    return Findings(
        "Two ranks",
        _METHOD if other else f"{_METHOD} {ABSENT}",
        tuple(table for table, _ in found),
        claims=tuple(claim for _, claim in found),
    )
