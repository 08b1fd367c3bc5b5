"""Ranks that share the tokens of a run compute what one process computes."""

from __future__ import annotations

import pytest
import torch

from executor.engine.program import Topology
from tests.executor.engine.tiny_transformers import FAMILIES, WITH_CFG, TinyTransformer, adaptive
from tests.executor.parallel.shared_runs import Case, relative, run_case, run_shared
from tests.executor.rank_farm import RankFarm

FP32 = 5e-6
TWO = [
    Topology(2, ulysses_size=2),
    Topology(2, ulysses_size=2, ulysses_async=True),
    Topology(2, ring_size=2),
    Topology(2, ring_size=2, ring_rotate_method="allgather"),
]
FOUR = [
    Topology(4, ulysses_size=4),
    Topology(4, ring_size=4),
    Topology(4, ring_size=4, ring_rotate_method="allgather"),
    Topology(4, ring_size=2, ulysses_size=2),
    Topology(4, ring_size=2, ulysses_size=2, ulysses_async=True),
]
# 4 heads and uneven tokens on 3 ranks.
THREE = [
    Topology(3, ulysses_size=3, ulysses_anything=True),
    Topology(3, ulysses_size=3, ulysses_anything=True, ulysses_async=True),
    Topology(3, ring_size=3),
    Topology(3, ring_size=3, ring_rotate_method="allgather"),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("topologies", [TWO, THREE, FOUR], ids=["2", "3", "4"])
def test_ranks_draw_what_one_process_draws(
    rank_farm: RankFarm, family: str, topologies: list[Topology]
) -> None:
    size = topologies[0].world_size
    tiny = TinyTransformer(family, (10, 6) if size == 3 else None)
    cases = [Case(tiny), Case(tiny, adaptive(0.4), 8)]
    if family in WITH_CFG:
        cases.append(Case(tiny, adaptive(0.4), 6, guided=True))
    by_rank = rank_farm.run(size, run_shared, cases, topologies)
    for c, case in enumerate(cases):
        alone = run_case(case, case.program)
        for t, topology in enumerate(topologies):
            runs = [rank[c][t] for rank in by_rank]
            for run in runs:
                assert relative(run.latents, alone.latents) < FP32, topology
                assert torch.equal(run.latents, runs[0].latents)
                assert run.outcomes == runs[0].outcomes
                kinds, expected = (
                    [[op and op.kind for op in step] for step in each.outcomes]
                    for each in (run, alone)
                )
                assert kinds == expected
