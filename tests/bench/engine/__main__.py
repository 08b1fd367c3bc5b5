"""Measures the engine against plain diffusers, diffusers' own caches and Cache-DiT."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch

from executor.placement.quiet import silence_libraries
from tests.bench.engine import lanes
from tests.bench.engine.counts import counts
from tests.bench.engine.lanes import Lane
from tests.bench.engine.models import LISTS, Subject, subjects
from tests.bench.engine.rounds import rounds, shares, table
from tests.bench.engine.whole_run import demo, whole_runs

_KINDS: tuple[Callable[[Subject], Iterator[Lane]], ...] = (
    lanes.plain,
    lanes.planned,
    lanes.diffusers_hooks,
)


def compare(subject: Subject, *, with_peer: bool) -> None:
    kinds = (*_KINDS, lanes.cache_dit) if with_peer else _KINDS
    found = [lane for kind in kinds for lane in kind(subject)]
    times = rounds(subject, found)
    blocks = sum(len(getattr(subject.transformer, name)) for name in LISTS)
    print(
        f"{subject.title}: {blocks} blocks, batch {subject.batch}, {subject.image_tokens} + "
        f"{subject.text_tokens} tokens, {subject.rounds} rounds; medians (quartiles)"
    )
    table(found, times)
    if not subject.passes_on:
        shares(found, times)
    by_name = {lane.name: lane for lane in found}
    planned = list(lanes.planned(subject))
    counts(subject, planned, by_name)


if __name__ == "__main__":
    silence_libraries()
    torch.set_num_threads(1)
    # Read when it is imported.
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    with_peer = find_spec("cache_dit") is not None
    for batch in (1, 4):
        whole_runs(demo(batch), with_peer=with_peer)
    for subject in subjects():
        compare(subject, with_peer=with_peer)
    if not with_peer:
        print("cache-dit is not installed: left out (pip install cache-dit==1.5.3)")
