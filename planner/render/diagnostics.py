"""Diagnostics with the source they are about: severity, place, excerpt, caret, hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from planner.diagnostics import Diagnostic, Severity
from planner.render.canvas import Canvas, display_width

_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.HINT: "cyan"}
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|[^\s:,#\[\]{}'"]+""")
_TAB = "    "


def render_diagnostics(
    diagnostics: Iterable[Diagnostic],
    *,
    source: str,
    source_name: str,
    width: int = 80,
    color: bool = False,
    ascii: bool = False,
) -> str:
    """All diagnostics as text that ends with a newline; empty without any."""
    canvas = Canvas(width, color, ascii)
    lines = split_lines(source)
    blocks = [_render(d, lines, source_name, canvas) for d in diagnostics]
    return "\n\n".join(blocks) + "\n" if blocks else ""


def split_lines(source: str) -> list[str]:
    """The lines of a config, as its diagnostics count them."""
    return _LINE_BREAK.split(source.removeprefix("\ufeff"))


def count_diagnostics(diagnostics: Iterable[Diagnostic]) -> str:
    """How many there are of each severity, e.g. ``1 error, 2 warnings``."""
    found = list(diagnostics)
    counts = ((severity.value, sum(d.severity is severity for d in found)) for severity in Severity)
    return ", ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts if n)


def _render(d: Diagnostic, lines: Sequence[str], source_name: str, canvas: Canvas) -> str:
    head = f"{d.severity.value}[{d.code}]"
    first, *more = canvas.wrap(f"{head}: {canvas.show(d.message)}", rest="  ")
    color = _COLORS[d.severity]
    out = [canvas.paint(head, color, bold=True) + first.removeprefix(head), *more]
    if d.line:
        field = f" ({canvas.show(d.field)})" if d.field else ""
        place = f"{canvas.show(source_name)}:{d.line}:{d.column}{field}"
        out.append(f"  {canvas.paint('-->', 'blue')} {place}")
        if d.line <= len(lines):
            out += _excerpt(d, lines, canvas)
    elif d.field:
        out.append(f"  {canvas.paint('-->', 'blue')} {canvas.show(d.field)}")
    for number, line in enumerate(d.hint.splitlines()):
        label = "  hint: " if number == 0 else " " * 8
        label_width = len(label)
        first, *more = canvas.wrap(canvas.show(line), first=label, rest=" " * label_width)
        if number == 0:
            first = canvas.paint(label.rstrip(), "cyan") + first.removeprefix(label.rstrip())
        out += [first, *more]
    return "\n".join(out)


def _excerpt(d: Diagnostic, lines: Sequence[str], canvas: Canvas) -> list[str]:
    """The line before for context, the line itself, and a caret under what is meant."""
    gutter = len(str(d.line))
    bar = canvas.paint("|", "blue")
    room = canvas.width - gutter - 4
    out = [f" {' ' * gutter} {bar}"]
    before = lines[d.line - 2] if d.line > 1 else ""
    if before.strip():
        text, _, _ = _window(before, 0, 0, room, canvas)
        out.append(f" {canvas.paint(str(d.line - 1).rjust(gutter), 'blue')} {bar} {text}".rstrip())
    line = lines[d.line - 1]
    start = min(max(d.column - 1, 0), len(line))
    token = _TOKEN.match(line, start)
    text, offset, length = _window(line, start, token.end() if token else start + 1, room, canvas)
    carets = canvas.paint("^" * length, _COLORS[d.severity], bold=True)
    return [
        *out,
        f" {canvas.paint(str(d.line).rjust(gutter), 'blue')} {bar} {text}".rstrip(),
        f" {' ' * gutter} {bar} {' ' * offset}{carets}",
    ]


def _window(line: str, start: int, end: int, room: int, canvas: Canvas) -> tuple[str, int, int]:
    """The part of a line around ``start`` that fits; the caret's offset and length in it."""
    head = _show(line[max(0, start - room) : start], canvas)
    tail = _show(line[start : start + room], canvas)
    half = room // 2
    if start > room or (display_width(head + tail) > room and display_width(head) > half):
        while display_width(head) > half - 3:
            head = head[1:]
        head = "..." + head
    offset = display_width(head)
    if start + room < len(line) or offset + display_width(tail) > room:
        while offset + display_width(tail) > room - 3:
            tail = tail[:-1]
        tail += "..."
    token = display_width(_show(line[start : min(end, start + room)], canvas))
    return head + tail, offset, max(1, min(token, room - offset))


def _show(text: str, canvas: Canvas) -> str:
    return canvas.show(text.replace("\t", _TAB))
