"""Ranks that share the tokens of a run compute what one process computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from executor.parallel.wire import Collective
from tests.executor.engine.tiny_transformers import FAMILIES, WITH_CFG, TinyTransformer, adaptive
from tests.executor.parallel.shared_runs import Case, relative, run_case, run_shared
from tests.executor.rank_farm import RankFarm

FP32 = 5e-6
# So close to a threshold, the rounding of sums may decide.
BAND = 1e-5
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


# Every family with uneven shares; on four ranks, those whose streams differ.
RUNS = [
    *(pytest.param(family, THREE, id=f"{family}-3") for family in FAMILIES),
    *(pytest.param(family, FOUR, id=f"{family}-4") for family in ("flux2", "qwen", "hunyuan")),
]


@pytest.mark.parametrize(("family", "topologies"), RUNS)
def test_ranks_draw_what_one_process_draws(
    rank_farm: RankFarm, family: str, topologies: list[Topology]
) -> None:
    size = topologies[0].world_size
    tiny = TinyTransformer(family, (10, 6) if size == 3 else None)
    cases = [Case(tiny, steps=2), Case(tiny, adaptive(0.4), 5)]
    if family in WITH_CFG:
        cases.append(Case(tiny, adaptive(0.4), 4, guided=True))
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


def test_a_long_cached_run_decides_as_one_process(rank_farm: RankFarm) -> None:
    """All 28 steps, and none of their diffs within rounding of the threshold."""
    threshold = 0.24
    tiny = TinyTransformer("flux", (10, 6))
    case = Case(tiny, adaptive(threshold, {"enable_taylorseer": True}), 28)
    alone = run_case(case, case.program)
    diffs = [op.residual_diff for (op,) in alone.outcomes if op and op.residual_diff is not None]
    assert min(abs(diff - threshold) for diff in diffs) > BAND * threshold
    assert len({op.kind for (op,) in alone.outcomes if op}) == 2
    for topology in (THREE[0], THREE[2]):
        for ((run,),) in rank_farm.run(3, run_shared, [case], [topology]):
            assert relative(run.latents, alone.latents) < FP32
            for (op,), (expected,) in zip(run.outcomes, alone.outcomes, strict=True):
                assert op is not None
                assert expected is not None
                assert op.kind is expected.kind
                if expected.residual_diff is None:
                    assert op.residual_diff is None
                else:
                    assert op.residual_diff == pytest.approx(expected.residual_diff, rel=BAND)


@pytest.mark.parametrize("family", ["flux", "wan", "hunyuan"])
def test_in_bf16_sharing_costs_less_than_bf16_does(rank_farm: RankFarm, family: str) -> None:
    full = Case(TinyTransformer(family))
    half = Case(TinyTransformer(family, dtype=torch.bfloat16))
    exact, alone = (run_case(case, case.program).latents.float() for case in (full, half))
    rounding = float((alone - exact).abs().max())
    topologies = [FOUR[0], FOUR[1], FOUR[3]]
    (runs,), *_ = rank_farm.run(4, run_shared, [half], topologies)
    for run, topology in zip(runs, topologies, strict=True):
        assert float((run.latents.float() - alone).abs().max()) < rounding, topology


@pytest.mark.parametrize("family", ["flux", "qwen"])
def test_eight_bit_exchanges_cost_little(rank_farm: RankFarm, family: str) -> None:
    """At most 3 % of the largest latent after three steps; half the bytes of bf16, and scales."""
    case = Case(TinyTransformer(family))
    alone = run_case(case, case.program)
    topologies = [
        Topology(4, ulysses_size=4),
        Topology(4, ulysses_size=4, ulysses_float8=True),
        Topology(4, ring_size=2, ulysses_size=2, ulysses_float8=True, ulysses_async=True),
    ]
    (runs,), *_ = rank_farm.run(4, run_shared, [case], topologies)
    for run in runs[1:]:
        assert 1e-5 < relative(run.latents, alone.latents) < 0.03
    exact, short = (run.counts[Collective.ALL_TO_ALL, "ulysses"] for run in runs[:2])
    # Rows of 16 channels: 16 bytes and a scale of 4, where fp32 has 64 and bf16 32.
    assert short.calls == exact.calls
    assert short.bytes * 64 == exact.bytes * 20
    assert runs[0].latents.isfinite().all()


def _too_few_tokens(world: World) -> str:
    tiny = TinyTransformer("flux", (1, 2))
    case = Case(tiny, steps=1)
    topology = Topology(3, ulysses_size=3, ulysses_anything=True)
    with pytest.raises(ValueError, match="tokens") as fault:
        run_case(case, replace(case.program, topology=topology), Sharing(world, topology))
    return str(fault.value)


def test_fewer_tokens_than_ranks_are_refused_with_the_numbers(rank_farm: RankFarm) -> None:
    for message in rank_farm.run(3, _too_few_tokens):
        assert message == "3 ranks cannot share the 2 tokens of the hidden stream"
