"""Halves of the ranks that run one forward of a step each draw what one process draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from executor.engine.execution import ProgramMismatchError
from executor.engine.program import Op, OpKind, Program, Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from executor.parallel.wire import Collective
from tests.executor.engine.whole_runs import Run, built, program_of, run_of
from tests.executor.parallel.shared_runs import relative
from tests.executor.rank_farm import RankFarm

HALVES = Topology(2, guidance_size=2)
# With thresholds at which some steps are computed and others cached.
THRESHOLDS = {
    "qwen-image": 0.1,
    "qwen-image-edit": 0.1,
    "wan-2.1": 0.1,
    "wan-2.2": 0.1,
    "wan-2.1-picture": 0.1,
    "hunyuan-video-1.5": 0.1,
    "klein": 0.1,
}


def programs_of(name: str, topology: Topology) -> list[Program]:
    """Uncached, decided and adaptive."""
    adaptive = program_of(name, True, "1???" if "2.2" not in name else "1?1?", fn=1, bn=0)
    return [
        replace(program, topology=topology)
        for program in (
            program_of(name, True, "1111", fn=0, bn=0),
            program_of(name, True, "1010", fn=1, bn=1),
            with_threshold(adaptive, THRESHOLDS[name]),
        )
    ]


def with_threshold(program: Program, threshold: float) -> Program:
    def changed(op: Op | None) -> Op | None:
        if op is None or op.adaptive is None:
            return op
        return replace(op, adaptive=replace(op.adaptive, residual_diff_threshold=threshold))

    return replace(program, steps=tuple(tuple(map(changed, step)) for step in program.steps))


def _run(world: World, name: str, programs: list[Program]) -> list[Run]:
    return [
        run_of(built(name), name, True, program, Sharing(world, program.topology))
        for program in programs
    ]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_halves_draw_bit_for_bit_what_one_process_draws(rank_farm: RankFarm, name: str) -> None:
    programs = programs_of(name, HALVES)
    first, second = rank_farm.run(2, _run, name, programs)
    for program, *halves in zip(programs, first, second, strict=True):
        alone = run_of(built(name), name, True, program)
        for half in halves:
            assert torch.equal(half.latents, alone.latents)
            assert half.outcomes == alone.outcomes
        assert halves[0].blocks + halves[1].blocks == alone.blocks
        assert min(min(half.blocks.values()) for half in halves) > 0
        kinds = {op.kind for step in alone.outcomes for op in step if op is not None}
        print(name, [[op and (op.kind.value, op.residual_diff) for op in s] for s in alone.outcomes])
