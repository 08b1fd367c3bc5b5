"""Whatever ran before or runs beside it, a run is as it is alone in a fresh process."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor, nn

from executor.engine.execution import Execution
from executor.engine.program import OpOutcome, Program
from tests.executor.engine.tiny_transformers import (
    WITH_CFG,
    TinyTransformer,
    adaptive,
    executable,
    static,
)

CONFIGS = (
    "",
    static("101101"),
    static("111010", {"enable_taylorseer": True, "taylorseer_order": 2}),
    static("111100", {"enable_foca": True, "calibrator_cache_type": "hidden_states"}),
    adaptive(0.2, {"max_continuous_cached_steps": 2, "Bn_compute_blocks": 1}),
    adaptive(0.5, {"enable_dmd": True, "enable_encoder_dmd": True}),
    adaptive(0.9, {"force_refresh_step_hint": 4, "enable_taylorseer": True}),
)


@dataclass(frozen=True)
class Run:
    """Everything that a run's result may depend on."""

    family: str
    config: str
    steps: int = 6
    seed: int = 1
    sides: tuple[int, int] = (4, 4)
    guided: bool = False

    @property
    def tiny(self) -> TinyTransformer:
        return TinyTransformer(self.family, self.sides)

    @property
    def program(self) -> Program:
        return _program(self.family, self.config, self.steps, self.sides, guided=self.guided)


@cache
def _program(
    family: str, config: str, steps: int, sides: tuple[int, int], *, guided: bool
) -> Program:
    return executable(TinyTransformer(family, sides).compile(config, steps, guided=guided))


Outcome = tuple[list[Tensor], list[tuple[OpOutcome | None, ...]]]
"""The latents after every step, and what every op did."""


@dataclass
class Course:
    """A run on its way: attached for one step at a time."""

    run: Run
    model: nn.Module
    execution: Execution = field(init=False)
    outcome: Outcome = field(default_factory=lambda: ([], []))

    def __post_init__(self) -> None:
        self.execution = Execution({"transformer": self.model}, self.run.program)
        self._steps = self.run.tiny.denoise(
            self.model, self.run.steps, seed=self.run.seed, guided=self.run.guided
        )

    def step(self) -> None:
        with self.execution.attached():
            latents = next(self._steps)
        self.outcome[0].append(latents)
        self.outcome[1].append(self.execution.end_step())

    @property
    def is_done(self) -> bool:
        return len(self.outcome[0]) == self.run.steps


PRISTINE = -1


def follow(run: Run, model: nn.Module) -> Outcome:
    course = Course(run, model)
    while not course.is_done:
        course.step()
    return course.outcome


@cache
def model_of(family: str, number: int = 0) -> nn.Module:
    """A model that many runs share; two of one family hold the same weights."""
    return TinyTransformer(family).build()


@cache
def alone(run: Run) -> Outcome:
    """The run on a model that has seen no other: a copy of one that none is ever attached to."""
    return follow(run, deepcopy(model_of(run.family, PRISTINE)))


def same(mine: Outcome, theirs: Outcome) -> bool:
    """Bit for bit, as far as the shorter one went."""
    return all(map(torch.equal, mine[0], theirs[0])) and all(
        one == other for one, other in zip(mine[1], theirs[1], strict=False)
    )


RUNS = (
    st.builds(
        Run,
        family=st.just("flux"),
        config=st.sampled_from(CONFIGS),
        seed=st.integers(1, 2),
        sides=st.sampled_from([(4, 4), (2, 6)]),
    )
    # A mask has the length of its run, the rest can have any.
    | st.builds(Run, st.just("flux"), st.sampled_from(CONFIGS[4:]), steps=st.just(4))
    | st.builds(Run, st.just("wan"), st.sampled_from(CONFIGS), guided=st.booleans())
)


class Runs(RuleBasedStateMachine):
    """Runs that begin, take a step, fail in the middle of one, or are given up, in any order: on
    two models of a family, and several on one of them."""

    courses: Bundle[Course] = Bundle("courses")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Course] = []

    @rule(target=courses, run=RUNS, number=st.integers(0, 1))
    def begin(self, run: Run, number: int) -> Course:
        course = Course(run, model_of(run.family, number))
        self.open.append(course)
        return course

    @rule(target=courses, course=consumes(courses), steps=st.integers(1, 3))
    def step(self, course: Course, steps: int) -> object:
        for _ in range(steps):
            course.step()
            if course.is_done:
                assert same(course.outcome, alone(course.run))
                self.open.remove(course)
                return multiple()
        return course

    @rule(course=consumes(courses), block=st.integers(0, 3))
    def fail(self, course: Course, block: int) -> None:
        """A block raises in the middle of a step."""

        def broken(*_: object) -> None:
            raise MemoryError

        lists = course.run.program.columns[0].block_lists
        hook = getattr(course.model, lists[0])[block].register_forward_pre_hook(broken)
        try:
            course.step()
        except MemoryError:
            pass
        else:
            assert same(course.outcome, alone(course.run))
        finally:
            hook.remove()
        self.open.remove(course)

    @rule(course=consumes(courses))
    def cancel(self, course: Course) -> None:
        self.open.remove(course)

    @rule(run=RUNS)
    def run_uncached_beside(self, run: Run) -> None:
        """A model that no run is attached to computes everything."""
        uncached = Run(run.family, "", sides=run.sides, steps=2)
        latents = list(uncached.tiny.denoise(model_of(run.family), 2))
        assert all(map(torch.equal, latents, alone(uncached)[0]))

    @invariant()
    def every_course_is_on_its_way(self) -> None:
        assert all(same(course.outcome, alone(course.run)) for course in self.open)

    def teardown(self) -> None:
        for course in self.open:
            while not course.is_done:
                course.step()
            assert same(course.outcome, alone(course.run))


def test_any_order_of_runs_leaves_each_as_it_is_alone() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Runs, settings=settings(max_examples=10, stateful_step_count=12, deadline=None)
    )


@pytest.mark.parametrize("family", ["qwen", "zimage", "hunyuan", "flux2"])
def test_runs_of_every_family_alternate_on_one_model(family: str) -> None:
    guided = family in WITH_CFG
    runs = [Run(family, CONFIGS[2], guided=guided), Run(family, CONFIGS[5], guided=guided)]
    courses = [Course(run, model_of(family)) for run in runs]
    for _ in range(6):
        for course in courses:
            course.step()
    assert all(same(course.outcome, alone(course.run)) for course in courses)


def test_a_run_is_as_in_a_fresh_process(tmp_path: Path) -> None:
    run = Run("flux", CONFIGS[5])
    follow(Run("flux", CONFIGS[4], seed=2), model_of("flux"))
    code = f"""
import sys, torch
torch.set_num_threads(1)
from tests.executor.engine.test_isolation import Run, follow
run = {run!r}
latents, ops = follow(run, run.tiny.build())
torch.save(latents, sys.argv[1])
print([[op.kind.name for op in step] for step in ops])
"""
    file = tmp_path / "latents.pt"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    latents, ops = follow(run, model_of("flux"))
    assert all(map(torch.equal, latents, torch.load(file)))
    assert done.stdout.split("\n")[-2] == str([[op.kind.name for op in s if op] for s in ops])


def test_cache_memory_ends_with_the_run() -> None:
    def live() -> int:
        gc.collect()
        # Not the fake ones that a compiler keeps.
        return sum(o.nbytes for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter))

    model = model_of("flux")
    for config in CONFIGS[:4]:
        follow(Run("flux", config), model)
    before = live()
    for config in CONFIGS[:4]:
        course = Course(Run("flux", config), model)
        for _ in range(5):
            course.step()
        held = course.execution._arena.bytes
        assert (held > 0) == bool(config)
        assert live() >= before + held
        del course
        assert live() == before


def test_cached_and_uncached_models_of_a_class_run_on_two_threads_at_once() -> None:
    """Neither sees the other, and the hooks of one are not the other's."""
    cached, uncached = Run("flux", CONFIGS[4]), Run("flux", "")
    expected = alone(cached), alone(uncached)
    both = threading.Barrier(2)
    plain: list[list[Tensor]] = []
    found: list[Outcome] = []

    def compute() -> None:
        for _ in range(3):
            both.wait(30)
            plain.append(list(uncached.tiny.denoise(model_of("flux", 1), uncached.steps)))

    def cache_() -> None:
        for _ in range(3):
            both.wait(30)
            found.append(follow(cached, model_of("flux", 0)))

    model_of("flux", 0), model_of("flux", 1)
    threads = [threading.Thread(target=compute), threading.Thread(target=cache_)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(plain) == len(found) == 3
    assert all(
        torch.equal(a, b) for each in plain for a, b in zip(each, expected[1][0], strict=True)
    )
    assert all(same(each, expected[0]) for each in found)


def _blocks_called(steps: Iterator[Tensor], model: nn.Module) -> int:
    """How many blocks the steps run."""
    calls: list[None] = []
    hooks = [
        block.register_forward_hook(lambda *_: calls.append(None))
        for name in ("transformer_blocks", "single_transformer_blocks")
        for block in (getattr(model, name)[i] for i in range(len(getattr(model, name))))
    ]
    for _ in steps:
        pass
    for hook in hooks:
        hook.remove()
    return len(calls)


def test_an_uncached_model_computes_every_block_beside_a_cached_one() -> None:
    cached, other = model_of("flux", 0), model_of("flux", 1)
    execution = Execution({"transformer": cached}, Run("flux", CONFIGS[1]).program)
    with execution.attached():
        assert _blocks_called(Run("flux", "").tiny.denoise(other, 6), other) == 6 * 10
