"""Jobs for ranks: runs of tiny transformers whose tokens or weights are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import Tensor

from executor.engine.execution import Execution
from executor.engine.program import OpOutcome, Program, Topology
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from executor.parallel.tensor import split_tensors
from executor.parallel.wire import Count, Group, Key
from planner.compile.compiler import Compilation
from tests.executor.engine.tiny_transformers import TinyTransformer, executable


@dataclass(frozen=True)
class SharedRun:
    """What came of it on one rank."""

    latents: Tensor
    outcomes: tuple[tuple[OpOutcome | None, ...], ...]
    counts: dict[Key, Count]
    cache_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A run of a tiny transformer; ``config`` None caches nothing."""

    tiny: TinyTransformer
    config: str | None = None
    steps: int = 3
    guided: bool = False

    @property
    def program(self) -> Program:
        config = "null" if self.config is None else self.config
        return executable(self.tiny.compile(config, self.steps, guided=self.guided))

    def under(self, topology: Topology) -> Planned:
        return Planned(self, replace(self.program, topology=topology))


@cache
def _model(tiny: TinyTransformer) -> Any:
    return tiny.build()


def run_case(
    case: Case, program: Program, sharing: Sharing | None = None, tp: Group | None = None
) -> SharedRun:
    """``tp``: the ranks that share the weights."""
    model = _model(case.tiny)
    if tp is not None and tp.size > 1:
        model = case.tiny.build()
        split_tensors(model, tp)
    execution = Execution({"transformer": model}, program, sharing=sharing)
    outcomes = []
    with execution.attached():
        for each in case.tiny.denoise(model, case.steps, guided=case.guided):
            outcomes.append(execution.end_step())
            latents = each
    return SharedRun(latents, tuple(outcomes), {}, execution.cache_bytes)


@dataclass(frozen=True)
class Planned:
    """A run that the planner has compiled, topology included."""

    case: Case
    program: Program

    @classmethod
    def of(cls, tiny: TinyTransformer, compilation: Compilation) -> Planned:
        program = executable(compilation)
        guided = len({column.branch for column in program.columns}) > 1
        return cls(Case(tiny, steps=len(program.steps), guided=guided), program)


def run_planned(world: World, runs: Sequence[Planned]) -> list[SharedRun]:
    """One run after the other, each under its own topology."""
    found = []
    for each in runs:
        sharing = Sharing(world, each.program.topology)
        before = dict(world.ledger.counts)
        tp = world.mesh(each.program.topology).tp
        shared = run_case(each.case, each.program, sharing, tp)
        found.append(replace(shared, counts=world.ledger.since(before)))
    return found


def run_shared(
    world: World, cases: Sequence[Case], topologies: Sequence[Topology]
) -> list[list[SharedRun]]:
    """Every case under every topology, one after the other in one world."""
    return [run_planned(world, [case.under(each) for each in topologies]) for case in cases]


def relative(value: Tensor, reference: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((value.float() - reference.float()).abs().max() / reference.float().abs().max())
