"""A plan as text for a terminal."""

from __future__ import annotations

from planner.compile.compiler import Compilation
from planner.compile.plan import Program
from planner.render.canvas import Canvas
from planner.render.diagnostics import count_diagnostics, render_diagnostics
from planner.render.strip import render_legend, render_strip
from planner.render.summary import by_column, spans, why
from planner.render.words import KIND_WORDS, facts, request_in_words, short_id

_HEADING = 11


def render_text(
    compilation: Compilation,
    plan_id: str | None,
    *,
    source: str,
    source_name: str,
    model: str = "",
    width: int = 80,
    color: bool = False,
    ascii: bool = False,
) -> str:
    """The whole preview, ending with a newline: the plan, if there is one, then the diagnostics."""
    canvas = Canvas(width, color, ascii)
    parts: list[str] = []
    if compilation.program is not None and plan_id is not None:
        parts.append("\n".join(_plan(compilation, compilation.program, plan_id, model, canvas)))
    if compilation.diagnostics:
        parts.append(
            render_diagnostics(
                compilation.diagnostics,
                source=source,
                source_name=source_name,
                width=width,
                color=color,
                ascii=ascii,
            ).rstrip("\n")
        )
        no_plan = "no plan: " if compilation.program is None else ""
        parts.append(no_plan + count_diagnostics(compilation.diagnostics))
    return "\n\n".join(parts) + "\n"


def _plan(
    compilation: Compilation, program: Program, plan_id: str, model: str, canvas: Canvas
) -> list[str]:
    request = request_in_words(compilation.request, "x" if canvas.ascii else "×")
    lines = [
        canvas.paint(canvas.show(model or program.model.family), bold=True),
        *canvas.wrap(f"{request}, plan {short_id(plan_id)}"),
        "",
        *render_strip(program, canvas),
        "",
        *render_legend(program, canvas, KIND_WORDS),
        "",
        *_why(program, canvas),
        "",
    ]
    for heading, sentence in facts(compilation):
        lines += _entry(heading, sentence, canvas)
    return lines + _entry("plan id", plan_id, canvas)


def _why(program: Program, canvas: Canvas) -> list[str]:
    """Which steps have their kind for which reason, per column where columns differ."""
    lines: list[str] = []
    for label, reasons in by_column(program, lambda column: why(program, column)):
        lines += canvas.wrap(f"{canvas.show(label)}:", first="  ", rest="  ") if label else []
        shown = [(each, spans(each.steps)) for each in reasons]
        left = min(canvas.width * 9 // 20, max((len(text) for _, text in shown), default=0))
        for each, text in shown:
            start = f"{'    ' if label else '  '}{canvas.glyph(each.kind)} "
            if len(text) <= left:
                hang = " " * (len(start) + left + 2)
                entry = canvas.wrap(
                    each.reason.meaning, first=start + text.ljust(left + 2), rest=hang
                )
            else:
                hang = " " * len(start)
                entry = canvas.wrap(f"{text}  {each.reason.meaning}", first=start, rest=hang)
            painted = canvas.paint_kind(canvas.glyph(each.kind), each.kind)
            lines += [entry[0].replace(canvas.glyph(each.kind), painted, 1), *entry[1:]]
    return lines


def _entry(heading: str, sentence: str, canvas: Canvas) -> list[str]:
    start = heading.ljust(_HEADING)
    first, *more = canvas.wrap(canvas.show(sentence), first=start, rest=" " * _HEADING)
    return [canvas.dim(start) + first.removeprefix(start), *more]
