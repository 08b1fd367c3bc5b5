"""The parts of a picture: the strip of steps with its legend, bounds and reasons; the ranks."""

from __future__ import annotations

from planner.compile.plan import Estimate, OpKind, Program, Topology
from planner.render.ranks import rank_formula, rank_grid
from planner.render.sheet import INK, MUTED, Sheet
from planner.render.summary import by_column, labels, running, spans, why
from planner.render.words import KIND_WORDS, computed_steps

_CHARACTER = 7.2
_CELL_HEIGHT = 26
_RANK_WIDTH = 33


def draw_steps(sheet: Sheet, program: Program, estimate: Estimate) -> None:
    """What every column does in every step, within which bounds, and why."""
    _strip(sheet, program)
    _legend(sheet, program)
    _bounds(sheet, estimate, program.num_inference_steps)
    _why(sheet, program)


def draw_ranks(sheet: Sheet, topology: Topology, left: float) -> None:
    """The mesh right of ``left``: a box for every rank, under and beside its coordinates."""
    grid = rank_grid(topology)
    if grid is None:
        sheet.paragraph(left, rank_formula(topology), size=12, mono=True)
        return
    labels = [*grid.column_axes, *(grid.label(row) for row in range(len(grid.ranks)))]
    start = left + _CHARACTER * max(map(len, labels)) + 14
    for band in grid.bands(int((sheet.right - start) / _RANK_WIDTH)):
        for number, (label, values) in enumerate(
            zip(labels, (*band.coordinates, *band.ranks), strict=True)
        ):
            rank = number >= len(grid.column_axes)
            sheet.text(start - 10, label, size=12, mono=True, color=MUTED, anchor="end")
            for i, value in enumerate(values):
                x = start + i * _RANK_WIDTH
                if rank:
                    sheet.cell(x, _RANK_WIDTH - 3, 22, None, "", up=15.5)
                middle = x + (_RANK_WIDTH - 3) / 2
                color = INK if rank else MUTED
                sheet.text(middle, str(value), size=12, mono=True, color=color, anchor="middle")
            sheet.y += 25 if rank else 19
        sheet.y += 6


def _strip(sheet: Sheet, program: Program) -> None:
    names = labels(program.columns)
    longest = _CHARACTER * max(map(len, names)) + 18
    inline = longest < sheet.width / 3
    left = sheet.left + (longest if inline else 0)
    room = sheet.right - left
    steps = program.num_inference_steps
    band = steps if room / steps >= 9 else int(room / 12) // 10 * 10
    cell = min(room / band, 44)
    for start in range(0, steps, band):
        stop = min(start + band, steps)
        sheet.y += 16
        for step in range(start, stop, 5):
            sheet.text(left + (step - start) * cell + 1, str(step), size=11, color=MUTED, mono=True)
        sheet.y += 7
        for index in running(program, start, stop):
            name = names[index]
            if inline:
                sheet.text(sheet.left, name, size=12, mono=True, down=_CELL_HEIGHT / 2 + 4)
            else:
                sheet.text(sheet.left, name, size=12, mono=True, down=12)
                sheet.y += 18
            for step in range(start, stop):
                x = left + (step - start) * cell
                op = program.steps[step][index]
                tip = f"step {step}, {name}: " + (
                    f"{op.kind.value.lower()}, {op.reason.meaning}" if op else "does not run"
                )
                sheet.cell(x, cell - 2, _CELL_HEIGHT, op.kind if op else None, tip)
            sheet.y += _CELL_HEIGHT + 5
    sheet.y += 22


def _legend(sheet: Sheet, program: Program) -> None:
    ops = [op for step in program.steps for op in step]
    present = {op.kind if op else None for op in ops}
    x: float = sheet.left
    for kind, word in (*KIND_WORDS.items(), (None, "does not run")):
        if kind in present:
            sheet.cell(x, 14, 14, kind, "", up=11)
            sheet.text(x + 21, word, size=13)
            x += 21 + len(word) * 7 + 28
    sheet.y += 32


def _bounds(sheet: Sheet, estimate: Estimate, steps: int) -> None:
    """A bar of all steps: surely computed, possibly computed, surely not."""
    low, high = estimate.min_computed_steps, estimate.max_computed_steps
    sheet.text(sheet.left, f"computes {computed_steps(estimate, steps)}", size=15, weight=600)
    sheet.y += 10
    unit = (sheet.right - sheet.left) / steps
    for start, stop, kind, word in (
        (0, low, OpKind.FULL, f"at least {low} steps are computed"),
        (low, high, OpKind.ADAPTIVE, f"up to {high} steps are computed"),
        (high, steps, OpKind.CACHED, f"{steps - high} steps are never computed"),
    ):
        if stop > start:
            sheet.cell(sheet.left + start * unit, (stop - start) * unit - 2, 12, kind, word)
    sheet.y += 40


def _why(sheet: Sheet, program: Program) -> None:
    for label, reasons in by_column(program, lambda column: why(program, column)):
        if label:
            sheet.paragraph(sheet.left, label, size=12.5, mono=True)
        for each in reasons:
            sheet.cell(sheet.left, 14, 14, each.kind, "", up=11)
            sheet.paragraph(sheet.left + 21, f"{spans(each.steps)}: {each.reason.meaning}", size=13)
