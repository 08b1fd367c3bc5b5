"""A plan as a picture: one self-contained SVG."""

from __future__ import annotations

from planner.compile.compiler import Compilation
from planner.diagnostics import Diagnostic, Severity
from planner.render.canvas import Canvas, display_width
from planner.render.picture import draw_ranks, draw_steps
from planner.render.sheet import MUTED, Sheet
from planner.render.words import TOPOLOGY, facts, request_in_words, short_id

_SEVERITY = {Severity.ERROR: "#b42318", Severity.WARNING: "#b54708", Severity.HINT: "#175cd3"}
_HEADING = 100
_MAX_NAME = 52


def render_svg(compilation: Compilation, plan_id: str, *, model: str = "") -> str:
    """The picture of a plan, its reasons as tooltips.

    Raises:
        ValueError: the compilation holds no plan.
    """
    program, estimate = compilation.program, compilation.estimate
    if program is None or estimate is None:
        raise ValueError("a failed compilation has no picture")
    name = model or program.model.family
    sheet = Sheet(name=short_id(plan_id), title=f"ditplan: what {name} computes at each step")
    sheet.text(sheet.left, _shortened(Canvas().show(name)), size=21, weight=600)
    sheet.text(sheet.right, short_id(plan_id), size=13, mono=True, color=MUTED, anchor="end")
    sheet.y += 24
    sheet.text(sheet.left, request_in_words(compilation.request), size=13.5, color=MUTED)
    sheet.y += 20
    draw_steps(sheet, program, estimate)
    sheet.rule()
    for heading, sentence in facts(compilation):
        _entry(sheet, heading, sentence, MUTED)
        if heading == TOPOLOGY:
            draw_ranks(sheet, program.topology, sheet.left + _HEADING)
    for diagnostic in compilation.diagnostics:
        _entry(
            sheet, diagnostic.severity.value, _finding(diagnostic), _SEVERITY[diagnostic.severity]
        )
    _entry(sheet, "plan id", plan_id, MUTED, mono=True)
    return sheet.finish()


def _entry(sheet: Sheet, heading: str, sentence: str, color: str, *, mono: bool = False) -> None:
    if heading:
        sheet.text(sheet.left, heading, size=13, color=color)
    sheet.paragraph(sheet.left + _HEADING, sentence, size=12 if mono else 13, mono=mono)


def _finding(diagnostic: Diagnostic) -> str:
    place = f" (line {diagnostic.line})" if diagnostic.line else ""
    hint = f"; {diagnostic.hint}" if diagnostic.hint else ""
    return f"{diagnostic.message}{place}{hint}"


def _shortened(name: str) -> str:
    """The end of a name, which tells checkpoints apart better than where they lie."""
    if display_width(name) <= _MAX_NAME:
        return name
    while display_width(name) > _MAX_NAME - 3:
        name = name[1:]
    return f"...{name}"
