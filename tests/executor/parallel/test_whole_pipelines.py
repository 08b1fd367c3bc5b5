"""Ranks that share the tokens of a whole pipeline's run draw what one process draws."""

from __future__ import annotations

import pytest

from executor.engine.program import Topology
from tests.executor.engine.whole_runs import CASES, built, program_of, run_of
from tests.executor.parallel.shared_runs import relative
from tests.executor.parallel.whole_shared_runs import STRIP, run_whole, run_wrongly
from tests.executor.rank_farm import RankFarm

TOPOLOGIES = {
    2: [Topology(2, ulysses_size=2), Topology(2, ring_size=2)],
    4: [Topology(4, ulysses_size=2, ring_size=2)],
}
NAMES = [
    (name, case.guided is not None)
    for name, case in CASES.items()
    # A ControlNet's residuals are whole where the tokens are not.
    if name != "flux-controlnet"
]


# Two streams, masks, two transformers, and rows that differ in length.
ON_FOUR = ("flux2", "qwen-image-edit", "hunyuan-video", "wan-2.2", "z-image-guided")
RUNS = [
    pytest.param(name, guided, size, id=f"{name}-{size}")
    for size in TOPOLOGIES
    for name, guided in NAMES
    if size == 2 or name in ON_FOUR
]


@pytest.mark.parametrize(("name", "guided", "size"), RUNS)
def test_ranks_draw_what_one_process_draws(
    rank_farm: RankFarm, name: str, guided: bool, size: int
) -> None:
    alone = run_of(built(name), name, guided, program_of(name, guided, STRIP, fn=1, bn=1))
    for (runs,) in rank_farm.run(size, run_whole, [(name, guided)], TOPOLOGIES[size]):
        for topology, run in zip(TOPOLOGIES[size], runs, strict=True):
            assert relative(run.latents, alone.latents) < 5e-6, topology
            assert run.blocks == alone.blocks
            assert run.outcomes == alone.outcomes


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("hunyuan-video", "padding is attended to"),
        ("hunyuan-video-1.5", "padding is attended to"),
        ("wan-2.1", "every rank has the first positions"),
        ("flux", "ranks attend to their own tokens only"),
    ],
)
def test_a_mistake_would_be_seen(rank_farm: RankFarm, name: str, mistake: str) -> None:
    guided = CASES[name].guided is not None
    alone = run_of(built(name), name, guided, program_of(name, guided, STRIP, fn=1, bn=1))
    topology = Topology(2, ulysses_size=2)
    run, _ = rank_farm.run(2, run_wrongly, name, guided, topology, mistake)
    assert relative(run.latents, alone.latents) > 1e-3
