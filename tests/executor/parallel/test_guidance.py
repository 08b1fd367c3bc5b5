"""Halves of the ranks that run one forward of a step each draw what one process draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from executor.engine.execution import ProgramMismatchError
from executor.engine.guidance import Meeting
from executor.engine.program import Op, OpKind, Program, Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from tests.executor.engine.whole_runs import CASES, Run, built, program_of, run_of
from tests.executor.parallel.shared_runs import relative
from tests.executor.rank_farm import RankFarm

HALVES = Topology(2, guidance_size=2)
QUARTERS = Topology(4, guidance_size=2, ulysses_size=2)
# At which some ops compute and others reuse; of an edit all residual diffs are above one.
THRESHOLDS = {
    "qwen-image": 0.835,
    "qwen-image-edit": 0.9,
    "wan-2.1": 0.6,
    "wan-2.2": 0.6,
    "wan-2.1-picture": 0.375,
    "hunyuan-video-1.5": 0.9,
    "klein": 0.9,
}


def programs_of(name: str, topology: Topology) -> list[Program]:
    """Uncached, decided and adaptive."""
    adaptive = program_of(name, True, "1?1?" if name == "wan-2.2" else "1???", fn=1, bn=0)
    return [
        replace(program, topology=topology)
        for program in (
            program_of(name, True, "1111", fn=0, bn=0),
            program_of(name, True, "1010", fn=1, bn=1),
            _with_threshold(adaptive, THRESHOLDS[name]),
        )
    ]


def _with_threshold(program: Program, threshold: float) -> Program:
    def changed(op: Op | None) -> Op | None:
        if op is None or op.adaptive is None:
            return op
        return replace(op, adaptive=replace(op.adaptive, residual_diff_threshold=threshold))

    return replace(program, steps=tuple(tuple(map(changed, step)) for step in program.steps))


def kinds(run: Run) -> list[list[OpKind | None]]:
    return [[op and op.kind for op in step] for step in run.outcomes]


def _run(world: World, name: str, programs: list[Program]) -> list[Run]:
    runs = [
        run_of(built(name), name, True, program, Sharing(world, program.topology))
        for program in programs
    ]
    # Nothing is left of them: the pipeline draws for itself again.
    return [*runs, run_of(built(name), name, True)]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_halves_draw_bit_for_bit_what_one_process_draws(rank_farm: RankFarm, name: str) -> None:
    programs = programs_of(name, HALVES)
    first, second = rank_farm.run(2, _run, name, programs)
    for program, *halves in zip(programs, first, second, strict=False):
        alone = run_of(built(name), name, True, program)
        for half in halves:
            assert torch.equal(half.latents, alone.latents)
            assert half.outcomes == alone.outcomes
        assert halves[0].blocks + halves[1].blocks == alone.blocks
        assert all(half.blocks.keys() == alone.blocks.keys() for half in halves)
    assert len({kind for step in kinds(first[2])[1:] for kind in step if kind}) == (
        1 if name == "qwen-image-edit" else 2
    )
    assert torch.equal(first[3].latents, first[0].latents)
    assert torch.equal(second[3].latents, first[0].latents)


@pytest.mark.parametrize("name", ["qwen-image", "wan-2.1"])
def test_ranks_of_a_half_share_its_forward(rank_farm: RankFarm, name: str) -> None:
    programs = programs_of(name, QUARTERS)
    for runs in rank_farm.run(4, _run, name, programs):
        for program, run in zip(programs, runs, strict=False):
            alone = run_of(built(name), name, True, program)
            assert relative(run.latents, alone.latents) < 5e-6
            assert kinds(run) == kinds(alone)


def _run_apart(world: World, name: str, program: Program) -> Run:
    """As if the halves never met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Meeting, "_ended", _kept)
        return run_of(built(name), name, True, program, Sharing(world, program.topology))


def _kept(self: Meeting, *call: object) -> None:
    if self.is_awaited:
        self._outputs.clear()
    else:
        self._outputs.append(torch.empty(0))


def test_halves_that_never_met_would_be_seen(rank_farm: RankFarm) -> None:
    program = replace(program_of("wan-2.1", True, "1111", fn=0, bn=0), topology=HALVES)
    alone = run_of(built("wan-2.1"), "wan-2.1", True, program)
    for run in rank_farm.run(2, _run_apart, "wan-2.1", program):
        assert relative(run.latents, alone.latents) > 1e-3


def _run_mismatched(world: World, name: str, guided: bool, program: Program) -> str:
    with pytest.raises(ProgramMismatchError) as fault:
        run_of(built(name), name, guided, program, Sharing(world, program.topology))
    return str(fault.value)


def test_a_pipeline_without_guidance_is_told_apart(rank_farm: RankFarm) -> None:
    assert CASES["wan-2.1"].plain is not None
    program = replace(program_of("wan-2.1", True, "1111", fn=0, bn=0), topology=HALVES)
    first, second = rank_farm.run(2, _run_mismatched, "wan-2.1", False, program)
    assert first == "step 0 of the pipeline ran one forward, the program has two"
    assert "step 0 of the pipeline did not run" in second


def test_a_program_without_guidance_is_refused(rank_farm: RankFarm) -> None:
    program = replace(program_of("wan-2.1", False, "1111", fn=0, bn=0), topology=HALVES)
    for message in rank_farm.run(2, _run_mismatched, "wan-2.1", False, program):
        assert message == "halves of the ranks run one forward each, transformer has 1 a step"
