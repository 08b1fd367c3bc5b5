"""What two programs compute differently, and which keys of their configs make the difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from planner.compile.plan import Branch, Column, Op, OpKind, Program, Reason
from planner.config.document import DocumentError, parse

Cell = tuple[OpKind, Reason] | None


@dataclass(frozen=True, slots=True)
class StepChange:
    """Steps of one column that two programs treat differently in the same way.

    None stands for a step, or a column, that one of them does not have.
    """

    target: str
    branch: Branch
    group: str
    steps: tuple[int, ...]
    before: Cell
    after: Cell


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting other than the ops; None where one side does not have it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key whose value differs between two configs; None where it is not given.

    ``changes_plan``: whether this key alone, changed in the first config, changes what it
    compiles to.
    """

    key: str
    before: Any
    after: Any
    changes_plan: bool


def step_changes(a: Program, b: Program) -> list[StepChange]:
    """By column, in the order of the steps that differ first."""
    found: dict[tuple[Any, ...], list[int]] = {}
    sides = [{_key(column): c for c, column in enumerate(side.columns)} for side in (a, b)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        for step in range(max(len(a.steps), len(b.steps))):
            before, after = (
                _cell(side, columns.get(key), step)
                for side, columns in zip((a, b), sides, strict=True)
            )
            if before != after:
                found.setdefault((*key, before, after), []).append(step)
    return [
        StepChange(target, branch, "+".join(lists), tuple(steps), before, after)
        for (target, branch, lists, before, after), steps in found.items()
    ]


def setting_changes(a: Program, b: Program) -> list[SettingChange]:
    """Everything else that is part of the plans' identity."""
    before, after = _settings(a), _settings(b)
    return [
        SettingChange(name, before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def key_changes(
    a: bytes, b: bytes, compile_text: Callable[[str], Program | None]
) -> list[KeyChange]:
    """The keys that differ between two config texts.

    ``compile_text`` compiles a config for the model and request of the first.
    """
    try:
        before, after = (dict(_leaves(parse(text).value)) for text in (a, b))
    except DocumentError:
        return []
    base = compile_text(json.dumps(_nested(before)))
    changes = []
    for path in dict.fromkeys([*before, *after]):
        if path in before and path in after and before[path] == after[path]:
            continue
        changed = {key: value for key, value in before.items() if key != path}
        if path in after:
            changed[path] = after[path]
        alone = compile_text(json.dumps(_nested(changed)))
        changes.append(KeyChange(".".join(path), before.get(path), after.get(path), alone != base))
    return changes


def _key(column: Column) -> tuple[str, Branch, tuple[str, ...]]:
    return column.target, column.branch, column.block_lists


def _cell(program: Program, column: int | None, step: int) -> Cell:
    if column is None or step >= len(program.steps):
        return None
    op: Op | None = program.steps[step][column]
    return None if op is None else (op.kind, op.reason)


def _settings(program: Program) -> dict[str, Any]:
    settings: dict[str, Any] = {"num_inference_steps": program.num_inference_steps}
    for c, column in enumerate(program.columns):
        place = f"{column.target}.{column.branch.value}.{column.group}."
        if len(program.columns) == 1:
            place = ""
        settings[f"{place}Fn_compute_blocks"] = column.fn_compute_blocks
        settings[f"{place}Bn_compute_blocks"] = column.bn_compute_blocks
        if column.calibrator is not None:
            settings[f"{place}calibrator"] = column.calibrator.forecast
            settings[f"{place}calibrator.cache_type"] = column.calibrator.cache_type
            settings[f"{place}calibrator.encoder"] = column.calibrator.encoder
        rules = {op.adaptive for step in program.steps if (op := step[c]) and op.adaptive}
        for rule in rules:
            for name, value in asdict(rule).items():
                settings[f"{place}{name}"] = value
    settings |= asdict(program.topology)
    settings |= asdict(program.placement)
    settings["attention_backend"] = program.attention_backend
    return settings


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys of a config with their values; a list is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif path:
        yield path, value


def _nested(leaves: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in leaves.items():
        inner = root
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return root
