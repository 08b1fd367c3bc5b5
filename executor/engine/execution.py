"""Executes a program on the transformers of a pipeline, forward by forward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn

from executor.engine.arena import Arena
from executor.engine.attention import attending
from executor.engine.families import FAMILIES, BlockCall
from executor.engine.forward import Forward
from executor.engine.guidance import Guidance
from executor.engine.program import Column, OpKind, OpOutcome, Program
from executor.engine.sharing import GroupSharing, Sharing
from executor.engine.walk import Course, Split, Walk, walking


class ProgramMismatchError(ValueError):
    """The program does not fit the pipeline; the message says what differs."""


class Execution:
    """One run of a program: its arena, and where in the program it stands.

    Args:
        targets: the transformers by their name in the program.
        before_forward: called before every forward of a target, with its step; may raise to end
            the run.
        sharing: the ranks that share the run; None where there is one.

    Raises:
        ProgramMismatchError: the program does not fit the targets.
    """

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        program: Program,
        before_forward: Callable[[int], None] = lambda step: None,
        sharing: Sharing | None = None,
    ) -> None:
        self._program = program
        self._targets = targets
        shares_forwards = sharing is not None and sharing.shares_forwards
        self._arena = Arena(program, sharing if shares_forwards else None)
        self._cache_bytes: tuple[int, ...] | None = None
        self._guidance: Guidance | None = None
        if sharing is not None and sharing.halves is not None:
            self._guidance = Guidance(program, targets, sharing.halves)
        self._before_forward = before_forward
        self._step = 0
        self._forwards: dict[int, Forward] = {}
        self._walks: list[tuple[nn.ModuleList, Walk]] = []
        self._shared: list[GroupSharing] = []
        # What it reaches does not keep it: its arena is gone as soon as nobody holds the run, and
        # not when the collector of cycles comes, before which the next run has one, too.
        own = weakref.proxy(self)
        groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for c, column in enumerate(program.columns):
            groups.setdefault((column.target, column.block_lists), []).append(c)
        for columns in groups.values():
            column = program.columns[columns[0]]
            lists = _block_lists(targets, column)
            split = _split(program, columns, sum(len(blocks) for _, blocks, _ in lists))
            has_middle = split.fn < split.bn
            course = Course(partial(Execution._open, own, columns, has_middle=has_middle))
            if self._guidance is not None:
                if len(columns) != 2:
                    raise ProgramMismatchError(
                        f"halves of the ranks run one forward each, {column.target} has "
                        f"{len(columns)} a step"
                    )
                meeting = self._guidance.meeting(column.target)
                course.is_elsewhere = partial(getattr, meeting, "is_elsewhere")
            shared = None
            if sharing is not None:
                shared = sharing.group(
                    targets[column.target],
                    [name for name, _, _ in lists],
                    program.attention_backend,
                )
            if shared is not None:
                self._shared.append(shared)
            start = 0
            for name, blocks, convention in lists:
                walk = Walk(name, blocks, start, split, course, convention, shared)
                self._walks.append((blocks, walk))
                start += len(blocks)

    @property
    def step(self) -> int:
        """The step that runs, or the number of steps once all have ended."""
        return self._step

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Runs the forwards of the targets under the program while the context lasts."""
        with ExitStack() as stack:
            stack.enter_context(attending(self._targets.values(), self._program.attention_backend))
            if self._guidance is not None:
                stack.enter_context(self._guidance.attached())
            for shared in self._shared:
                stack.enter_context(shared.attached())
            for blocks, walk in self._walks:
                stack.enter_context(walking(blocks, walk))
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
        ops, guidance = self._program.steps[self._step], self._guidance
        outcomes: list[OpOutcome | None] = []
        for c, op in enumerate(ops):
            forward = self._forwards.pop(c, None)
            is_own = op is not None and (guidance is None or guidance.runs(c))
            if is_own and (forward is None or forward.outcome is None):
                raise ProgramMismatchError(
                    f"step {self._step} of the pipeline did not run {self._program.columns[c]}"
                )
            outcomes.append(None if forward is None else forward.outcome)
        if guidance is not None and guidance.is_awaited:
            raise ProgramMismatchError(
                f"step {self._step} of the pipeline ran one forward, the program has two"
            )
        self._step += 1
        if guidance is not None:
            outcomes = guidance.outcomes(ops, outcomes)
            if self._step == len(self._program.steps):
                self._cache_bytes = guidance.cache_bytes(self._arena.peak_bytes)
        return tuple(outcomes)

    @property
    def cache_bytes(self) -> tuple[int, ...]:
        """The most that each column's cache has held so far; until the last step has ended, those
        of this rank's columns.
        """
        return self._arena.peak_bytes if self._cache_bytes is None else self._cache_bytes

    def _open(self, columns: list[int], *, has_middle: bool) -> Forward:
        """The next forward of a group: of its columns, the first that the step has yet to run."""
        self._before_forward(self._step)
        if self._guidance is not None:
            columns = [c for c in columns if self._guidance.runs(c)]
        if self._step < len(self._program.steps):
            for c in columns:
                op = self._program.steps[self._step][c]
                if op is not None and c not in self._forwards:
                    state = self._arena.columns[c]
                    forward = Forward(state, self._step, op, has_middle=has_middle)
                    self._forwards[c] = forward
                    return forward
        raise ProgramMismatchError(
            f"step {self._step} of the pipeline runs more forwards than the program has"
        )


def _block_lists(
    targets: Mapping[str, nn.Module], column: Column
) -> list[tuple[str, nn.ModuleList, BlockCall]]:
    """The lists of a group that have blocks, each with the calling convention of its blocks."""
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
            lists.append((name, blocks, conventions[name]))
    return lists


def _split(program: Program, columns: list[int], count: int) -> Split:
    """Where a group of ``count`` blocks is divided; its columns agree on it."""
    splits = {
        (program.columns[c].fn_compute_blocks, program.columns[c].bn_compute_blocks)
        for c in columns
    }
    name = "+".join(program.columns[columns[0]].block_lists)
    if len(splits) > 1:
        raise ProgramMismatchError(f"the branches of {name} differ in Fn and Bn")
    [(fn, bn)] = splits
    if fn + bn > count:
        raise ProgramMismatchError(f"Fn {fn} + Bn {bn} exceed the {count} blocks of {name}")
    kinds = {op.kind for step in program.steps for c in columns if (op := step[c]) is not None}
    if fn == 0 and kinds - {OpKind.FULL}:
        raise ProgramMismatchError(f"{name}: with Fn 0 no step can be cached")
    return Split(fn, count - bn, count)
