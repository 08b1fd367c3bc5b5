"""A plan as one self-contained HTML page: picture, estimate, rules, findings, config."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from planner.compile.compiler import Compilation
from planner.compile.plan import Estimate, Program
from planner.diagnostics import Diagnostic
from planner.render.canvas import Canvas
from planner.render.costs import headlines
from planner.render.diagnostics import count_diagnostics, render_diagnostics, split_lines
from planner.render.picture import draw_ranks, draw_steps
from planner.render.sheet import Sheet
from planner.render.style import STYLE
from planner.render.words import TOPOLOGY, computed_steps, facts, request_in_words, short_id

_EXCERPT_WIDTH = 100


def render_html(
    compilation: Compilation,
    plan_id: str | None,
    *,
    source: str,
    source_name: str,
    model: str = "",
) -> str:
    """The page; of a failed compilation, what was found wrong with its config."""
    program, estimate = compilation.program, compilation.estimate
    name = model or (program.model.family if program else "")
    parts = [f"<header><h1>{_shown(name)}</h1>"]
    parts.append(f"<p>{_shown(request_in_words(compilation.request))}</p></header>")
    if program is not None and estimate is not None and plan_id is not None:
        parts += _plan(compilation, program, estimate, short_id(plan_id))
    if compilation.diagnostics:
        parts += _diagnostics(compilation.diagnostics, source, source_name)
    if source.strip():
        parts += _config(compilation.diagnostics, source, source_name)
    id_line = f"plan <code>{_shown(plan_id)}</code>" if plan_id else "no plan"
    parts.append(f"<footer>{id_line}</footer>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_shown(name)}: ditplan preview</title>\n<style>\n{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _plan(compilation: Compilation, program: Program, estimate: Estimate, short: str) -> list[str]:
    steps = Sheet(name=short, title="what is computed at each step", framed=False)
    draw_steps(steps, program, estimate)
    tiles = [("computed", computed_steps(estimate, program.num_inference_steps))]
    tiles += headlines(estimate, program.num_inference_steps)
    parts = ['<ul class="tiles">']
    parts += [f"<li><b>{_shown(value)}</b>{_shown(label)}</li>" for label, value in tiles]
    parts += ["</ul>", f"<section>{steps.finish()}</section>", "<section><h2>Plan</h2>", "<dl>"]
    for heading, sentence in facts(compilation):
        parts.append(f"<dt>{_shown(heading)}</dt>" if heading else "")
        parts.append(f"<dd>{_shown(sentence)}</dd>")
        if heading == TOPOLOGY:
            title = "which rank holds which place of the mesh"
            ranks = Sheet(name=f"{short}-ranks", title=title, framed=False)
            ranks.y += 14
            draw_ranks(ranks, program.topology, ranks.left)
            parts.append(f"<dd>{ranks.finish()}</dd>")
    return [*parts, "</dl></section>"]


def _diagnostics(diagnostics: Sequence[Diagnostic], source: str, source_name: str) -> list[str]:
    parts = [f"<section><h2>Diagnostics: {count_diagnostics(diagnostics)}</h2>"]
    for each in diagnostics:
        text = render_diagnostics(
            [each], source=source, source_name=source_name, width=_EXCERPT_WIDTH
        )
        parts.append(f'<pre class="{each.severity.value}">{escape(text)}</pre>')
    return [*parts, "</section>"]


def _config(diagnostics: Sequence[Diagnostic], source: str, source_name: str) -> list[str]:
    """The text with numbered lines, those with a finding marked."""
    found = {each.line: each.severity.value for each in reversed(diagnostics)}
    lines = [
        f'<li class="{found.get(number, "")}">{_shown(line)}</li>'
        for number, line in enumerate(split_lines(source.rstrip()), 1)
    ]
    return [
        f"<section><h2>{_shown(source_name)}</h2>",
        f'<ol class="config">{"".join(lines)}</ol></section>',
    ]


def _shown(text: str) -> str:
    """Text as a page can hold it: escaped, and without control characters."""
    return escape(Canvas().show(text))
