"""The engine beside plain diffusers, diffusers' own caches and Cache-DiT."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.bench.engine.compare import CACHED, COMPUTED, Comparison, compare
from tests.bench.engine.models import subjects
from tests.bench.engine.rounds import more
from tests.bench.engine.whole_run import WholeRuns, demo, whole_runs
from tests.bench.peer import ABSENT, peer
from tests.bench.report import Claim, Findings

_METHOD = """\
Steps and whole runs of one process on one thread, by its processor time, which other work on the \
machine hardly touches. Every round gives every lane a turn in an order drawn anew, on the same \
inputs; ratios and differences are of lanes within a round. A cached step is compared with a \
forward of the one block that it computes; ADAPTIVE is DBCache's test at run time. The bound of a \
plan is the speed-up that its floating point operations promise for the steps that were computed, \
as if nothing but blocks took time."""


def measure(*, look: bool) -> Findings:
    """Steps of three transformers, what ops cost host and memory, runs of one and four pictures."""
    torch.set_num_threads(1)
    other = peer()
    with_peer = bool(other)
    settings = [(1, 2)] if look else [(1, 7), (4, 5)]
    runs = [whole_runs(demo(batch, rounds=many), with_peer=with_peer) for batch, many in settings]
    compared = [compare(subject, with_peer=with_peer) for subject in subjects(look=look)]
    return Findings(
        "Engine",
        _METHOD if with_peer else f"{_METHOD} {ABSENT}",
        (
            *(run.table for run in runs),
            *(table for comparison in compared for table in comparison.tables),
        ),
        claims=tuple(_claims(runs, compared, other)),
    )


def _claims(runs: list[WholeRuns], compared: list[Comparison], other: str) -> Iterator[Claim]:
    demo, _, empty = compared
    yield demo.claim("a computed step of the demo model, over plain diffusers'", COMPUTED, other)
    yield demo.claim("a cached step of it, over a forward of its one block", CACHED, other)
    for what, kind in (("a computed", COMPUTED), ("a cached", CACHED)):
        what = f"the engine's own time in {what} step of 20 near-empty blocks, us"
        yield empty.claim(what, kind, other, ".0f", more)
    batch = runs[-1].setting.batch
    promise = "of the speed-up that its plan promises"
    yield runs[-1].claim(f"a run of cache.yaml on the demo model, batch {batch}: {promise}", other)
