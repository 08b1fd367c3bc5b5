"""Ranks that share tokens attend to them with the backend that the plan names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from tests.executor.engine.tiny_transformers import WITH_CFG, TinyTransformer, adaptive
from tests.executor.parallel.shared_runs import Case, SharedRun, relative, run_case
from tests.executor.rank_farm import RankFarm

BACKEND = "_native_math"
TOPOLOGIES = {
    2: [
        Topology(2, ulysses_size=2),
        Topology(2, ulysses_size=2, ulysses_async=True),
        Topology(2, ring_size=2, ring_rotate_method="allgather"),
    ],
    4: [
        Topology(4, ulysses_size=4),
        Topology(4, ring_size=4, ring_rotate_method="allgather"),
        Topology(4, ring_size=2, ulysses_size=2, ring_rotate_method="allgather"),
    ],
}


def _refused(**arguments: Any) -> Any:
    raise AssertionError("the native backend was used")


def _run(world: World, case: Case, topologies: list[Topology], backend: str) -> list[SharedRun]:
    """On ranks whose native attention fails, unless it is what is asked for."""
    program = replace(case.program, attention_backend=backend)
    with pytest.MonkeyPatch.context() as patch:
        if backend != "native":
            name = AttentionBackendName.NATIVE
            patch.setitem(_AttentionBackendRegistry._backends, name, _refused)
        return [
            run_case(case, replace(program, topology=topology), Sharing(world, topology))
            for topology in topologies
        ]


# Plain, with attention to a prompt beside, and with padding.
@pytest.mark.parametrize("family", ["flux", "wan", "hunyuan"])
@pytest.mark.parametrize("size", TOPOLOGIES)
def test_ranks_draw_what_one_rank_draws_with_the_backend(
    rank_farm: RankFarm, size: int, family: str
) -> None:
    case = Case(TinyTransformer(family), adaptive(0.4), 4, guided=family in WITH_CFG)
    alone = run_case(case, replace(case.program, attention_backend=BACKEND))
    for runs in rank_farm.run(size, _run, case, TOPOLOGIES[size], BACKEND):
        for run, topology in zip(runs, TOPOLOGIES[size], strict=True):
            assert relative(run.latents, alone.latents) < 5e-6, topology


def test_a_ring_that_merges_gives_flash_its_own_parts(rank_farm: RankFarm) -> None:
    case, backend = Case(TinyTransformer("flux")), "_native_flash"
    alone = run_case(case, replace(case.program, attention_backend=backend))
    for (run,) in rank_farm.run(2, _run, case, [Topology(2, ring_size=2)], backend):
        assert relative(run.latents, alone.latents) < 5e-6


def _merging(world: World) -> str:
    with pytest.raises(ValueError, match="ring") as fault:
        _run(world, Case(TinyTransformer("flux")), [Topology(2, ring_size=2)], BACKEND)
    return str(fault.value)


def test_a_ring_that_merges_is_refused_with_other_backends(rank_farm: RankFarm) -> None:
    for message in rank_farm.run(2, _merging):
        assert message == (
            "ring_rotate_method p2p merges partial results, which attention backend _native_math "
            "does not give; _native_flash, native do, and allgather needs none"
        )
