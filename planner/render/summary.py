"""What a program does, condensed: reasons, rules and names of its columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from planner.compile.difference import ColumnName
from planner.compile.plan import AdaptiveRule, Branch, Column, OpKind, Program, Reason

T = TypeVar("T", bound=Hashable)
Columns = Sequence[Column | ColumnName]


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


def grouped_targets(columns: Columns) -> set[str]:
    """The targets whose blocks are cached in more than one group."""
    groups: dict[str, set[str]] = defaultdict(set)
    for column in columns:
        groups[column.target].add(column.group)
    return {target for target, names in groups.items() if len(names) > 1}


def labels(columns: Columns) -> list[str]:
    """One name per column, no longer than it takes to tell the columns apart."""
    branches = any(column.branch is Branch.UNCOND for column in columns)
    grouped = grouped_targets(columns)
    return [
        " ".join(
            [
                column.target,
                *([column.branch.value] if branches else []),
                *([column.group] if column.target in grouped else []),
            ]
        )
        for column in columns
    ]


def label_of(chosen: Container[int], columns: Columns) -> str:
    """One name for some of the columns: "" for all, a target's own where all of its are chosen."""
    numbers: dict[str, list[int]] = {}
    for index, column in enumerate(columns):
        numbers.setdefault(column.target, []).append(index)
    if all(index in chosen for index in range(len(columns))):
        return ""
    each = labels(columns)
    names: list[str] = []
    for target, own in numbers.items():
        some = [index for index in own if index in chosen]
        names += [target] if some == own else [each[index] for index in some]
    return ", ".join(names)


def by_column(program: Program, value: Callable[[int], T]) -> list[tuple[str, T]]:
    """The distinct values over all columns, each with the name of the columns that have it."""
    found: dict[T, list[int]] = {}
    for index in range(len(program.columns)):
        found.setdefault(value(index), []).append(index)
    return [(label_of(chosen, program.columns), each) for each, chosen in found.items()]


def running(program: Program, start: int, stop: int) -> list[int]:
    """The columns that run in some of the steps."""
    steps = program.steps[start:stop]
    return [c for c in range(len(program.columns)) if any(ops[c] is not None for ops in steps)]


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
