"""The difference of two plans as text and as a JSON-ready document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from planner.compile.compiler import Compilation
from planner.compile.difference import Cell, ColumnName, KeyChange, SettingChange, StepChange
from planner.render.canvas import Canvas
from planner.render.sources import written
from planner.render.strip import render_strip
from planner.render.summary import label_of, spans
from planner.render.words import computed_steps, short_id

_EFFECTS = {
    True: "changes the plan",
    False: "alone changes nothing",
    None: "alone is an error",
}


@dataclass(frozen=True, slots=True)
class Side:
    """One of two plans, by the name under which it was given."""

    name: str
    plan_id: str
    compilation: Compilation


@dataclass(frozen=True, slots=True)
class Difference:
    """``columns`` are those of either plan."""

    columns: Sequence[ColumnName]
    steps: Sequence[StepChange]
    settings: Sequence[SettingChange]
    keys: Sequence[KeyChange]


def render_difference(
    a: Side,
    b: Side,
    difference: Difference,
    *,
    width: int = 80,
    color: bool = False,
    ascii: bool = False,
) -> str:
    """Both strips, then what differs; ends with a newline."""
    canvas = Canvas(width, color, ascii)
    arrow = "->" if ascii else "→"
    if a.plan_id == b.plan_id:
        return f"{canvas.show(a.name)} and {canvas.show(b.name)} are the same plan, {a.plan_id}\n"
    lines: list[str] = []
    for side in (a, b):
        program, estimate = side.compilation.program, side.compilation.estimate
        assert program is not None
        assert estimate is not None
        bounds = computed_steps(estimate, program.num_inference_steps)
        title = f"{canvas.show(side.name)}: plan {short_id(side.plan_id)}, computes {bounds}"
        lines += [canvas.paint(line, bold=True) for line in canvas.wrap(title, rest="  ")]
        lines += [*render_strip(program, canvas), ""]
    columns = difference.columns
    if difference.steps:
        lines.append(canvas.paint("steps", bold=True))
        for change in difference.steps:
            about = _about(change.columns, columns)
            text = f"{spans(change.steps)}: {_cell(change.before)} {arrow} {_cell(change.after)}"
            lines += canvas.wrap(canvas.show(about + text), first="  ", rest="      ")
        lines.append("")
    if difference.settings:
        lines.append(canvas.paint("settings", bold=True))
        for setting in difference.settings:
            about = _about(setting.columns, columns) if setting.columns else ""
            before, after = (_value(each, "none") for each in (setting.before, setting.after))
            text = f"{about}{setting.name}: {before} {arrow} {after}"
            lines += canvas.wrap(canvas.show(text), first="  ", rest="      ")
        lines.append("")
    if difference.keys:
        lines.append(canvas.paint("keys", bold=True))
        for key in difference.keys:
            before, after = (_value(each, "not given") for each in (key.before, key.after))
            text = f"{key.key}: {before} {arrow} {after} ({_EFFECTS[key.changes_plan]})"
            lines += canvas.wrap(canvas.show(text), first="  ", rest="      ")
        lines.append("")
    return "\n".join(lines)


def difference_document(a: Side, b: Side, difference: Difference) -> dict[str, Any]:
    return {
        "plan_ids": [a.plan_id, b.plan_id],
        "same": a.plan_id == b.plan_id,
        "steps": [
            {
                "columns": _columns(change.columns),
                "steps": list(change.steps),
                "before": _op(change.before),
                "after": _op(change.after),
            }
            for change in difference.steps
        ],
        "settings": [
            asdict(change) | {"columns": _columns(change.columns)} for change in difference.settings
        ],
        "keys": [asdict(change) for change in difference.keys],
    }


def _columns(columns: Sequence[ColumnName]) -> list[dict[str, str]]:
    return [asdict(column) | {"branch": column.branch.value} for column in columns]


def _op(cell: Cell) -> dict[str, str] | None:
    return None if cell is None else {"kind": cell[0].value, "reason": cell[1].value}


def _about(chosen: Sequence[ColumnName], columns: Sequence[ColumnName]) -> str:
    label = label_of([columns.index(column) for column in chosen], columns)
    return f"{label}: " if label else ""


def _cell(cell: Cell) -> str:
    return "does not run" if cell is None else f"{cell[0].value.lower()} ({cell[1].meaning})"


def _value(value: Any, absent: str) -> str:
    return absent if value is None else written(value)
