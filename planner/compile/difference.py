"""What two programs compute differently, and which keys of their configs make the difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from planner.compile.plan import Branch, Column, Op, OpKind, Program, Reason
from planner.config.load import load

Cell = tuple[OpKind, Reason] | None


@dataclass(frozen=True, slots=True)
class ColumnName:
    """What makes columns of two programs the same one."""

    target: str
    branch: Branch
    group: str

    @staticmethod
    def of(column: Column) -> ColumnName:
        return ColumnName(column.target, column.branch, column.group)


@dataclass(frozen=True, slots=True)
class StepChange:
    """Steps that two programs treat differently in the same way, in all of the columns.

    None stands for a step, or a column, that one of them does not have.
    """

    columns: tuple[ColumnName, ...]
    steps: tuple[int, ...]
    before: Cell
    after: Cell


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting other than the ops, of some columns or (without them) of the whole program.

    None where one side does not have it.
    """

    columns: tuple[ColumnName, ...]
    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key whose value differs between two configs; None where it is not given.

    ``changes_plan``: whether this key alone, changed in the first config, changes what it
    compiles to; None if it then is an error.
    """

    key: str
    before: Any
    after: Any
    changes_plan: bool | None


def all_columns(a: Program, b: Program) -> list[ColumnName]:
    """Those of the first program, then those that only the second one has."""
    return list(dict.fromkeys(map(ColumnName.of, (*a.columns, *b.columns))))


def step_changes(a: Program, b: Program) -> list[StepChange]:
    """By columns, in the order of the steps that differ first."""
    found: dict[tuple[tuple[int, ...], Cell, Cell], list[ColumnName]] = {}
    sides = [(side, _by_name(side)) for side in (a, b)]
    for name in all_columns(a, b):
        differing: dict[tuple[Cell, Cell], list[int]] = {}
        for step in range(max(len(a.steps), len(b.steps))):
            before, after = (_cell(side, columns.get(name), step) for side, columns in sides)
            if before != after:
                differing.setdefault((before, after), []).append(step)
        for (before, after), steps in differing.items():
            found.setdefault((tuple(steps), before, after), []).append(name)
    return [
        StepChange(tuple(columns), steps, before, after)
        for (steps, before, after), columns in found.items()
    ]


def setting_changes(a: Program, b: Program) -> list[SettingChange]:
    """Everything else that is part of the plans' identity; values are those of JSON."""
    columns: dict[tuple[str, Any, Any], list[ColumnName]] = {}
    sides = [(side, _by_name(side)) for side in (a, b)]
    for name in all_columns(a, b):
        before, after = (
            _column_settings(side, own[name]) if name in own else {} for side, own in sides
        )
        for change in _changes(before, after):
            columns.setdefault(change, []).append(name)
    return [
        *(SettingChange((), *change) for change in _changes(_settings(a), _settings(b))),
        *(SettingChange(tuple(names), *change) for change, names in columns.items()),
    ]


def key_changes(
    a: bytes, b: bytes, compile_text: Callable[[str], Program | None]
) -> list[KeyChange]:
    """The keys that differ between two config texts, in whichever form they are.

    ``compile_text`` compiles a config for the model and request of the first.
    """
    before, after = (dict(_leaves(_sections(text))) for text in (a, b))
    base = compile_text(json.dumps(_nested(before)))
    changes = []
    for path in dict.fromkeys([*before, *after]):
        if path in before and path in after and before[path] == after[path]:
            continue
        changed = {key: value for key, value in before.items() if key != path}
        if path in after:
            changed[path] = after[path]
        alone = compile_text(json.dumps(_nested(changed)))
        changes.append(
            KeyChange(
                ".".join(path),
                before.get(path),
                after.get(path),
                alone != base if alone is not None else None,
            )
        )
    return changes


def _by_name(program: Program) -> dict[ColumnName, int]:
    return {ColumnName.of(column): c for c, column in enumerate(program.columns)}


def _cell(program: Program, column: int | None, step: int) -> Cell:
    if column is None or step >= len(program.steps):
        return None
    op: Op | None = program.steps[step][column]
    return None if op is None else (op.kind, op.reason)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (name, before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _settings(program: Program) -> dict[str, Any]:
    return {
        "num_inference_steps": program.num_inference_steps,
        **asdict(program.topology),
        **asdict(program.placement),
        "quant_type": program.placement.quant_type or None,
        "attention_backend": program.attention_backend or None,
    }


def _column_settings(program: Program, index: int) -> dict[str, Any]:
    column = program.columns[index]
    settings: dict[str, Any] = {
        "Fn_compute_blocks": column.fn_compute_blocks,
        "Bn_compute_blocks": column.bn_compute_blocks,
        "reuses_cond_diff": column.reuses_cond_diff,
    }
    if column.calibrator is not None:
        forecast = column.calibrator.forecast
        settings["calibrator"] = type(forecast).__name__ if forecast else None
        settings["calibrator.cache_type"] = column.calibrator.cache_type.value
        settings["calibrator.encoder"] = column.calibrator.encoder
        for name, value in (asdict(forecast) if forecast else {}).items():
            settings[f"calibrator.{name}"] = value
    rules = (op.adaptive for step in program.steps if (op := step[index]) and op.adaptive)
    for rule in rules:
        settings |= asdict(rule)
    return settings


def _sections(text: bytes) -> Any:
    config = load(text)
    value = config.document.value
    return {"cache_config": value} if config.flat else value


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
