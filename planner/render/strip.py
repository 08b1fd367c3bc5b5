"""The step strip: one character per step and column, under a ruler, wrapped to the width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from planner.compile.plan import Op, OpKind, Program
from planner.render.canvas import Canvas
from planner.render.summary import labels, running

_INDENT = 2
_MIN_ROOM = 40
_TICK = 5


def render_strip(program: Program, canvas: Canvas) -> list[str]:
    """One row per column in each band of steps; bands start at multiples of ten."""
    names = [canvas.show(label) for label in labels(program.columns)]
    longest = max(map(len, names), default=0)
    inline = canvas.width - _INDENT - longest - 2 >= _MIN_ROOM
    left = _INDENT + (longest + 2 if inline else 2)
    room = canvas.width - left
    steps = program.num_inference_steps
    cell = 2 if 2 * steps <= room else 1
    band = steps if cell * steps <= room else room // (10 * cell) * 10
    lines: list[str] = []
    for start in range(0, steps, band):
        stop = min(start + band, steps)
        lines += [""] if lines else []
        lines.append(" " * left + canvas.dim(_ruler(start, stop, cell, room)))
        for index in running(program, start, stop):
            name = names[index]
            row = _row((ops[index] for ops in program.steps[start:stop]), cell, canvas)
            if inline:
                lines.append(f"{' ' * _INDENT}{name.ljust(longest)}  {row}".rstrip())
            else:
                lines += [f"{' ' * _INDENT}{name}", f"{' ' * left}{row}".rstrip()]
    return lines


def render_legend(program: Program, canvas: Canvas, words: Mapping[OpKind, str]) -> list[str]:
    """The glyphs that the strip of a program holds."""
    ops = [op for step in program.steps for op in step]
    present = {op.kind for op in ops if op is not None}
    entries = [
        (f"{canvas.glyph(kind)} {word}", canvas.paint_kind(canvas.glyph(kind), kind) + f" {word}")
        for kind, word in words.items()
        if kind in present
    ]
    if None in ops:
        entries.append(("blank: does not run", "blank: does not run"))
    gap = " " * 3
    if _INDENT + len(gap.join(plain for plain, _ in entries)) <= canvas.width:
        return [" " * _INDENT + gap.join(painted for _, painted in entries)]
    return [" " * _INDENT + painted for _, painted in entries]


def _row(ops: Iterable[Op | None], cell: int, canvas: Canvas) -> str:
    gap = " " * (cell - 1)
    runs = []
    for kind, run in groupby(op.kind if op else None for op in ops):
        cells = gap.join([canvas.glyph(kind) if kind else " "] * len(list(run)))
        runs.append(canvas.paint_kind(cells, kind) if kind else cells)
    return gap.join(runs)


def _ruler(start: int, stop: int, cell: int, room: int) -> str:
    """Step numbers, each above its step and none cut off."""
    tick = _TICK if len(str(stop)) < _TICK * cell else 2 * _TICK
    ruler = ""
    for step in range(start, stop, tick):
        mark = ruler.ljust((step - start) * cell) + str(step)
        ruler = mark if len(mark) <= room else ruler
    return ruler
