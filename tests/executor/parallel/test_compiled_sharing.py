"""Ranks share the tokens of a run whose blocks are compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from executor.engine.execution import Execution
from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from tests.executor.engine.tiny_transformers import WITH_CFG, TinyTransformer, adaptive
from tests.executor.parallel.shared_runs import Case, relative, run_case
from tests.executor.rank_farm import RankFarm

TOPOLOGIES = (
    Topology(2, ulysses_size=2),
    Topology(2, ring_size=2),
    Topology(2, ring_size=2, ring_rotate_method="allgather"),
)


def _run(case: Case, model: Any, world: World, topology: Topology) -> Tensor:
    program = replace(case.program, topology=topology)
    execution = Execution({"transformer": model}, program, sharing=Sharing(world, topology))
    latents = torch.empty(0)
    with execution.attached():
        for after in case.tiny.denoise(model, case.steps, guided=case.guided):
            latents = after
            execution.end_step()
    return latents


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _compiled(world: World, case: Case) -> list[Tensor]:
    """The latents of two runs under every topology; only the first of all may compile."""
    torch._dynamo.reset()
    before, model = _graphs(), case.tiny.build()
    model.compile_repeated_blocks(fullgraph=False, backend="eager")  # type: ignore[operator]
    try:
        found = [_run(case, model, world, TOPOLOGIES[0])]
        after = _graphs()
        assert after > before
        with torch._dynamo.config.patch(error_on_recompile=True):
            found += [_run(case, model, world, topology) for topology in TOPOLOGIES * 2]
        assert _graphs() == after
    finally:
        torch._dynamo.reset()
    return found


# Two streams and padding, and attention to a prompt beside.
@pytest.mark.parametrize("family", ["hunyuan", "wan"])
def test_compiled_blocks_attend_to_the_tokens_of_all_ranks(
    rank_farm: RankFarm, family: str
) -> None:
    case = Case(TinyTransformer(family), adaptive(0.4), 3, guided=family in WITH_CFG)
    alone = run_case(case, case.program).latents
    for runs in rank_farm.run(2, _compiled, case):
        for latents in runs:
            assert relative(latents, alone) < 1e-5
        assert torch.equal(runs[0], runs[1])
        assert torch.equal(runs[0], runs[4])
