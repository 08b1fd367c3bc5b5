"""The difference of two plans as text and as a JSON-ready document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from planner.compile.compiler import Compilation
from planner.compile.difference import Cell, KeyChange, SettingChange, StepChange
from planner.render.canvas import Canvas
from planner.render.strip import render_strip
from planner.render.summary import spans
from planner.render.words import computed_steps, short_id


@dataclass(frozen=True, slots=True)
class Side:
    """One of two plans, by the name under which it was given."""

    name: str
    plan_id: str
    compilation: Compilation


@dataclass(frozen=True, slots=True)
class Difference:
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
    if difference.steps:
        lines.append(canvas.paint("steps", bold=True))
        for change in difference.steps:
            text = f"{spans(change.steps)}: {_cell(change.before)} {arrow} {_cell(change.after)}"
            lines += canvas.wrap(text, first="  ", rest="      ")
        lines.append("")
    if difference.settings:
        lines.append(canvas.paint("settings", bold=True))
        for setting in difference.settings:
            text = f"{setting.name}: {_value(setting.before)} {arrow} {_value(setting.after)}"
            lines += canvas.wrap(canvas.show(text), first="  ", rest="      ")
        lines.append("")
    if difference.keys:
        lines.append(canvas.paint("keys", bold=True))
        for key in difference.keys:
            effect = "changes the plan" if key.changes_plan else "alone changes nothing"
            text = f"{key.key}: {_value(key.before)} {arrow} {_value(key.after)} ({effect})"
            lines += canvas.wrap(canvas.show(text), first="  ", rest="      ")
        lines.append("")
    return "\n".join(lines)


def difference_document(a: Side, b: Side, difference: Difference) -> dict[str, Any]:
    return {
        "plan_ids": [a.plan_id, b.plan_id],
        "same": a.plan_id == b.plan_id,
        "steps": [
            {
                "target": change.target,
                "branch": change.branch.value,
                "group": change.group,
                "steps": list(change.steps),
                "before": _op(change.before),
                "after": _op(change.after),
            }
            for change in difference.steps
        ],
        "settings": [_plain(asdict(change)) for change in difference.settings],
        "keys": [_plain(asdict(change)) for change in difference.keys],
    }


def _op(cell: Cell) -> dict[str, str] | None:
    return None if cell is None else {"kind": cell[0].value, "reason": cell[1].value}


def _cell(cell: Cell) -> str:
    return "does not run" if cell is None else f"{cell[0].value.lower()} ({cell[1].meaning})"


def _value(value: Any) -> str:
    return "not given" if value is None else str(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
