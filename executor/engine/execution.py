"""Executes a program on the transformers of a pipeline, forward by forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn

from executor.engine.arena import Arena
from executor.engine.families import FAMILIES
from executor.engine.forward import Forward
from executor.engine.program import Column, OpOutcome, Program
from executor.engine.runner import BlockRunner, Course, yielding


class ProgramMismatchError(ValueError):
    """The program does not fit the pipeline; the message says what differs."""


class Execution:
    """One run of a program: its arena, and where in the program it stands.

    Args:
        targets: the transformers by their name in the program.
        before_forward: called before every forward of a target; may raise to end the run.

    Raises:
        ProgramMismatchError: the program does not fit the targets.
    """

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        program: Program,
        before_forward: Callable[[], None] = lambda: None,
    ) -> None:
        self._program = program
        self._arena = Arena(program)
        self._before_forward = before_forward
        self._step = 0
        self._forwards: dict[int, Forward] = {}
        self._runners: list[tuple[nn.ModuleList, BlockRunner]] = []
        groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for c, column in enumerate(program.columns):
            groups.setdefault((column.target, column.block_lists), []).append(c)
        for columns in groups.values():
            course = Course(open=partial(self._open, columns))
            self._runners += _runners(targets, program.columns[columns[0]], course)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Runs the forwards of the targets under the program while the context lasts."""
        with ExitStack() as stack:
            for blocks, runner in self._runners:
                stack.enter_context(yielding(blocks, runner))
            yield

    def end_step(self) -> tuple[OpOutcome | None, ...]:
        """What each column did in the step; to be called once after each.

        Raises:
            ProgramMismatchError: the model ran fewer forwards than the program has.
        """
        if self._step >= len(self._program.steps):
            raise ProgramMismatchError(
                f"the pipeline runs more steps than the {len(self._program.steps)} of the program"
            )
        ops = self._program.steps[self._step]
        outcomes: list[OpOutcome | None] = []
        for c, op in enumerate(ops):
            forward = self._forwards.pop(c, None)
            if op is not None and (forward is None or forward.outcome is None):
                raise ProgramMismatchError(
                    f"step {self._step} of the pipeline did not run {self._program.columns[c]}"
                )
            outcomes.append(None if forward is None else forward.outcome)
        self._step += 1
        return tuple(outcomes)

    def _open(self, columns: list[int]) -> Forward:
        """The next forward of a group: of its columns, the first that the step has yet to run."""
        self._before_forward()
        if self._step < len(self._program.steps):
            for c in columns:
                op = self._program.steps[self._step][c]
                if op is not None and c not in self._forwards:
                    self._forwards[c] = Forward(self._arena.columns[c], self._step, op)
                    return self._forwards[c]
        raise ProgramMismatchError(
            f"step {self._step} of the pipeline runs more forwards than the program has"
        )


def _runners(
    targets: Mapping[str, nn.Module], column: Column, course: Course
) -> Iterator[tuple[nn.ModuleList, BlockRunner]]:
    """The block lists of a group, each with the runner that stands in for it."""
    target = targets.get(column.target)
    if target is None:
        raise ProgramMismatchError(f"the pipeline has no {column.target}")
    target_class = type(target).__name__
    conventions = FAMILIES.get(target_class)
    if conventions is None:
        raise ProgramMismatchError(
            f"{target_class} is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    lists = []
    for name in column.block_lists:
        blocks = getattr(target, name, None)
        if not isinstance(blocks, nn.ModuleList) or name not in conventions:
            raise ProgramMismatchError(f"{target_class} has no block list {name}")
        if len(blocks):
            lists.append((blocks, conventions[name]))
    count = sum(len(blocks) for blocks, _ in lists)
    fn, bn = column.fn_compute_blocks, column.bn_compute_blocks
    if fn + bn > count:
        raise ProgramMismatchError(f"Fn {fn} + Bn {bn} exceed the {count} blocks of {target_class}")
    start = 0
    for blocks, convention in lists:
        yield blocks, BlockRunner(course, convention, blocks, start=start, fn=fn, bn=count - bn)
        start += len(blocks)
