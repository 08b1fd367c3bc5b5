"""The two forwards of a step, each of which one half of the ranks runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from executor.engine.program import Op, OpKind, OpOutcome, Program
from executor.engine.sharing import Halves

_KINDS = (OpKind.FULL, OpKind.CACHED)


class Meeting:
    """Where the two forwards that a target runs in a step meet: behind the second.

    On the ranks that do not run it, a forward gives something of the right shape. Once the second
    has ended, both hold what the half that runs them computed. The first is filled in place: a
    pipeline keeps what it was given, or a view of it, until it has the second.
    """

    def __init__(self, halves: Halves) -> None:
        self._halves = halves
        self._outputs: list[Tensor] = []
        self.device: torch.device | None = None
        """Where the target computes, once it has; its weights may wait elsewhere."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the forward that is under way is the other half's."""
        return len(self._outputs) != self._halves.index

    @property
    def is_awaited(self) -> bool:
        """Whether the first forward of a step has ended, but not the second."""
        return bool(self._outputs)

    @contextmanager
    def attached(self, target: nn.Module) -> Iterator[None]:
        handle = target.register_forward_hook(self._ended)
        try:
            yield
        finally:
            handle.remove()

    def _ended(self, target: nn.Module, arguments: Any, output: Any) -> None:
        # A tuple, or an output of diffusers: the tensor is the first of either.
        self._outputs.append(output[0])
        self.device = output[0].device
        if len(self._outputs) < 2:
            return
        own = self._halves.index
        both = self._halves.all_gather(self._outputs[own].contiguous())
        self._outputs[1 - own].copy_(both[1 - own])
        self._outputs.clear()


class Guidance:
    """What one half of the ranks leaves to the other in a run, and is told of it."""

    def __init__(self, program: Program, targets: Mapping[str, nn.Module], halves: Halves) -> None:
        groups = [(column.target, column.block_lists) for column in program.columns]
        # A block group's first column is its first forward of a step, whatever its branch.
        self._half_of = [groups[:c].count(group) for c, group in enumerate(groups)]
        self._is_cached = any(column.calibrator is not None for column in program.columns)
        self._halves = halves
        self._targets = targets
        self._meetings = {name: Meeting(halves) for name, _ in groups}

    def meeting(self, target: str) -> Meeting:
        return self._meetings[target]

    @property
    def is_awaited(self) -> bool:
        return any(meeting.is_awaited for meeting in self._meetings.values())

    def runs(self, column: int) -> bool:
        """Whether this half runs a column."""
        return self._half_of[column] == self._halves.index

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, meeting in self._meetings.items():
                stack.enter_context(meeting.attached(self._targets[name]))
            yield

    def outcomes(
        self, ops: Sequence[Op | None], own: Sequence[OpOutcome | None]
    ) -> list[OpOutcome | None]:
        """What each column did in a step, given what this half's did.

        Only of ADAPTIVE ops something has to be told.
        """
        found = [None if op is None else OpOutcome(op.kind) for op in ops]
        adaptive = [c for c, op in enumerate(ops) if op is not None and op.adaptive is not None]
        if adaptive:
            told = self._told([_numbers(own[c]) for c in adaptive])
            for i, c in enumerate(adaptive):
                found[c] = _outcome(told[self._half_of[c]][i])
        return found

    def cache_bytes(self, own: Sequence[int]) -> tuple[int, ...]:
        """The most that each column's cache held, given what this half's held."""
        if not self._is_cached:
            return tuple(own)
        told = self._told([[nbytes] for nbytes in own])
        return tuple(int(told[half][c][0]) for c, half in enumerate(self._half_of))

    def _told(self, rows: Sequence[Sequence[float]]) -> Any:
        """The rows of both halves."""
        device = next((each.device for each in self._meetings.values() if each.device), None)
        numbers = torch.tensor(rows, dtype=torch.float64, device=device)
        return self._halves.all_gather(numbers).tolist()


def _numbers(outcome: OpOutcome | None) -> tuple[float, float]:
    """Of a column that other ranks run there is nothing to tell."""
    if outcome is None:
        return math.nan, math.nan
    diff = outcome.residual_diff
    return _KINDS.index(outcome.kind), math.nan if diff is None else diff


def _outcome(numbers: Sequence[float]) -> OpOutcome:
    kind, diff = numbers
    return OpOutcome(_KINDS[int(kind)], None if math.isnan(diff) else diff)
