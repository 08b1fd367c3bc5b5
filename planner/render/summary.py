"""What a program does, condensed: reasons, rules and names of its columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from planner.compile.plan import (
    AdaptiveRule,
    Branch,
    OpKind,
    Program,
    Reason,
)

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Why:
    """The steps of a column that have one kind for one reason."""

    kind: OpKind
    reason: Reason
    steps: tuple[int, ...]


def spans(steps: Iterable[int]) -> str:
    """Step numbers with runs joined: ``0, 2, 8-11``."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and runs[-1][1] == step - 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def grouped_targets(program: Program) -> set[str]:
    """The targets whose blocks are cached in more than one group."""
    groups: dict[str, set[str]] = defaultdict(set)
    for column in program.columns:
        groups[column.target].add(column.group)
    return {target for target, names in groups.items() if len(names) > 1}


def labels(program: Program) -> list[str]:
    """One name per column, no longer than it takes to tell the columns apart."""
    branches = any(column.branch is Branch.UNCOND for column in program.columns)
    grouped = grouped_targets(program)
    return [
        " ".join(
            [
                column.target,
                *([column.branch.value] if branches else []),
                *([column.group] if column.target in grouped else []),
            ]
        )
        for column in program.columns
    ]


def by_column(program: Program, value: Callable[[int], T]) -> list[tuple[str, T]]:
    """The distinct values over all columns, each with its columns' names, "" if it is them all."""
    found: dict[T, list[str]] = {}
    for index, label in enumerate(labels(program)):
        found.setdefault(value(index), []).append(label)
    if len(found) == 1:
        return [("", next(iter(found)))]
    return [(", ".join(names), each) for each, names in found.items()]


def why(program: Program, column: int) -> tuple[Why, ...]:
    """The reasons of a column, in the order in which they first apply."""
    found: dict[tuple[OpKind, Reason], list[int]] = {}
    for step, ops in enumerate(program.steps):
        op = ops[column]
        if op is not None:
            found.setdefault((op.kind, op.reason), []).append(step)
    return tuple(Why(kind, reason, tuple(steps)) for (kind, reason), steps in found.items())


def may_cache(program: Program, column: int) -> bool:
    return any((op := step[column]) and op.kind is not OpKind.FULL for step in program.steps)


def refreshed_steps(program: Program) -> list[int]:
    return [i for i, ops in enumerate(program.steps) if any(op and op.refresh for op in ops)]


def rules(program: Program, column: int) -> tuple[AdaptiveRule, ...]:
    """The distinct rules of a column's adaptive ops."""
    ops = [step[column] for step in program.steps]
    return tuple(dict.fromkeys(op.adaptive for op in ops if op and op.adaptive))
