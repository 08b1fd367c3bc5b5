"""How steps of one transformer compare, by who runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.engine import lanes
from tests.bench.engine.counts import counts
from tests.bench.engine.lanes import Lane
from tests.bench.engine.models import Subject
from tests.bench.engine.rounds import Times, ratios, rounds, shares, steps
from tests.bench.report import Claim, Figure, Table

_KINDS: tuple[Callable[[Subject], Iterator[Lane]], ...] = (
    lanes.plain,
    lanes.planned,
    lanes.diffusers_hooks,
)
COMPUTED = "FULL, stores for TaylorSeer", "cache-dit FULL, TaylorSeer 1", "plain diffusers"
CACHED = "CACHED, TaylorSeer 1", "cache-dit CACHED, TaylorSeer 1", "plain, first block alone"
"""What both engines have, ours first, and what it is compared with."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tables of a subject, and the times that they tell of."""

    subject: Subject
    times: Times
    tables: tuple[Table, ...]

    def claim(
        self,
        what: str,
        kind: tuple[str, str, str],
        peer: str,
        form: str = ".3f",
        of: Callable[[Times, str, str], list[float]] = ratios,
    ) -> Claim:
        """Ours beside the peer's, each compared with the same lane; an empty peer is left out."""
        ours, theirs, to = kind
        mine = Figure.of(of(self.times, ours, to), form)
        if not peer:
            return Claim(what, mine)
        return Claim(what, mine, Figure.of(of(self.times, theirs, to), form), peer)


def compare(subject: Subject, *, with_peer: bool) -> Comparison:
    kinds = (*_KINDS, lanes.cache_dit) if with_peer else _KINDS
    found = [lane for kind in kinds for lane in kind(subject)]
    times = rounds(subject, found)
    tables = [steps(subject, found, times)]
    if not subject.passes_on:
        tables.append(shares(subject, found, times))
    by_name = {lane.name: lane for lane in found}
    tables.append(counts(subject, list(lanes.planned(subject)), by_name))
    return Comparison(subject, times, tuple(tables))
