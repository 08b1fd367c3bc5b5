"""A plan as text for a terminal."""

from __future__ import annotations

import textwrap
from itertools import zip_longest

from planner.compile.compiler import Compilation
from planner.compile.plan import Program
from planner.render.canvas import NO_BREAK_SPACE, Canvas
from planner.render.diagnostics import count_diagnostics, render_diagnostics
from planner.render.ranks import render_ranks
from planner.render.sources import render_sources
from planner.render.strip import render_legend, render_strip
from planner.render.summary import by_column, spans, why
from planner.render.words import (
    KIND_WORDS,
    TOPOLOGY,
    computed_steps,
    facts,
    request_in_words,
    short_id,
)

_HEADING = 11


def render_text(
    compilation: Compilation,
    plan_id: str | None,
    *,
    source: str,
    source_name: str,
    model: str = "",
    sources: bool = False,
    width: int = 80,
    color: bool = False,
    ascii: bool = False,
) -> str:
    """The whole preview, ending with a newline: the plan, if there is one, then the diagnostics.

    ``sources`` adds to the plan where every value comes from.
    """
    canvas = Canvas(width, color, ascii)
    parts: list[str] = []
    if plan_id is not None:
        parts.append("\n".join(_plan(compilation, plan_id, model, canvas)))
        if sources and compilation.sources:
            heading = canvas.paint("sources", bold=True)
            parts.append("\n".join([heading, *render_sources(compilation.sources, canvas)]))
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
        no_plan = "no plan: " if plan_id is None else ""
        parts.append(no_plan + count_diagnostics(compilation.diagnostics))
    return "\n\n".join(parts) + "\n"


def _plan(compilation: Compilation, plan_id: str, model: str, canvas: Canvas) -> list[str]:
    program, estimate = compilation.program, compilation.estimate
    if program is None or estimate is None:
        raise ValueError("a failed compilation has no plan id")
    computed = computed_steps(estimate, program.num_inference_steps)
    request = request_in_words(compilation.request, "x" if canvas.ascii else "×")
    lines = [
        canvas.paint(canvas.show(model or program.model.family), bold=True),
        *canvas.wrap(f"{request}, plan{NO_BREAK_SPACE}{short_id(plan_id)}"),
        "",
        *render_strip(program, canvas),
        "",
        *render_legend(program, canvas, KIND_WORDS),
        "",
        *_why(program, canvas),
        "",
    ]
    for heading, sentence in (("computes", computed), *facts(compilation)):
        lines += _entry(heading, sentence, canvas)
        if heading == TOPOLOGY:
            lines += render_ranks(program.topology, canvas, indent=_HEADING)
    return lines + _entry("plan id", plan_id, canvas)


def _why(program: Program, canvas: Canvas) -> list[str]:
    """Which steps have their kind for which reason, per column where columns differ."""
    lines: list[str] = []
    for label, reasons in by_column(program, lambda column: why(program, column)):
        indent = "    " if label else "  "
        lines += canvas.wrap(f"{canvas.show(label)}:", first="  ", rest="  ") if label else []
        longest = max((len(spans(each.steps)) for each in reasons), default=0)
        left = min(longest, canvas.width * 9 // 20)
        right = canvas.width - left - len(indent) - 4
        for each in reasons:
            steps = textwrap.wrap(spans(each.steps), left)
            meaning = textwrap.wrap(each.reason.meaning, right)
            mark = canvas.paint_kind(canvas.glyph(each.kind), each.kind)
            for a, b in zip_longest(steps, meaning, fillvalue=""):
                lines.append(f"{indent}{mark} {a.ljust(left)}  {b}".rstrip())
                mark = " "
    return lines


def _entry(heading: str, sentence: str, canvas: Canvas) -> list[str]:
    start = heading.ljust(_HEADING)
    first, *more = canvas.wrap(canvas.show(sentence), first=start, rest=" " * _HEADING)
    return [canvas.dim(start) + first.removeprefix(start), *more]
