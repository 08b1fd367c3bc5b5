"""Why a step is computed or cached, as text and as a JSON-ready document."""

from __future__ import annotations

from typing import Any

from planner.compile.explanation import Account, Explanation
from planner.compile.plan import Program
from planner.render.canvas import NO_BREAK_SPACE, Canvas
from planner.render.document import diagnostic_document
from planner.render.summary import by_column, spans
from planner.render.words import request_in_words, shared_diff, short_id


def render_explanation(
    explanation: Explanation,
    plan_id: str,
    *,
    model: str,
    width: int = 80,
    color: bool = False,
    ascii: bool = False,
) -> str:
    """The tests of every column, equal ones once; ends with a newline.

    Raises:
        ValueError: the compilation holds no plan.
    """
    canvas = Canvas(width, color, ascii)
    program = explanation.compilation.program
    if program is None:
        raise ValueError("a failed compilation has no step to explain")
    request = request_in_words(explanation.compilation.request, "x" if ascii else "×")
    backend = program.attention_backend
    attention = f", attention_backend{NO_BREAK_SPACE}{canvas.show(backend)}" if backend else ""
    lines = [
        canvas.paint(canvas.show(model), bold=True),
        *canvas.wrap(
            f"step {explanation.step} of {request}, plan{NO_BREAK_SPACE}{short_id(plan_id)}"
            f"{attention}"
        ),
    ]
    for label, account in by_column(program, lambda c: explanation.accounts[c]):
        lines += ["", *_head(label, account, canvas), *_counted(account, explanation.step, canvas)]
        lines += _tests(account, canvas)
    if shared := shared_diff(program, [explanation.step]):
        lines += ["", *canvas.wrap(shared)]
    return "\n".join(lines) + "\n"


def explanation_document(
    explanation: Explanation, plan_id: str | None, *, model: str
) -> dict[str, Any]:
    """The same keys in every case; without a plan there are no columns."""
    program = explanation.compilation.program
    return {
        "plan_id": plan_id,
        "model": model,
        "step": explanation.step,
        "attention_backend": program.attention_backend or None if program else None,
        "columns": _columns(program, explanation) if program else [],
        "diagnostics": [diagnostic_document(d) for d in explanation.compilation.diagnostics],
    }


def _head(label: str, account: Account, canvas: Canvas) -> list[str]:
    about = f"{canvas.show(label)}: " if label else ""
    op = account.op
    if op is None:
        only = f", only in {spans(account.steps)}" if account.steps else ""
        return canvas.wrap(f"{about}does not run in this step{only}")
    mark = canvas.glyph(op.kind)
    first, *more = canvas.wrap(
        f"{mark} {about}{op.kind.value.lower()}, {op.reason.meaning}", rest="  "
    )
    return [canvas.paint_kind(mark, op.kind) + first.removeprefix(mark), *more]


def _counted(account: Account, step: int, canvas: Canvas) -> list[str]:
    """How the numbers in the tests relate to the number of the step."""
    if not account.counted_from or not account.tests:
        return []
    since = (
        "where this transformer begins"
        if account.counted_from == account.steps.start
        else "where the cache starts anew"
    )
    counted = step - account.counted_from
    return canvas.wrap(
        f"counted from step {account.counted_from}, {since}: step {step} is its step {counted}",
        first="  ",
        rest="  ",
    )


def _tests(account: Account, canvas: Canvas) -> list[str]:
    lines = []
    for number, test in enumerate(account.tests, 1):
        decided = canvas.paint(" (decides)", bold=True) if test.kind else ""
        lines.append(f"  {number}. {test.key}{decided}")
        lines += canvas.wrap(canvas.show(test.says), first="     ", rest="     ")
    return lines


def _columns(program: Program, explanation: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "target": column.target,
            "branch": column.branch.value,
            "group": column.group,
            "kind": account.op.kind.name if account.op else None,
            "reason": account.op.reason.name if account.op else None,
            "refresh": account.op.refresh if account.op else False,
            "counted_from": account.counted_from if account.op else None,
            "tests": [
                {"key": test.key, "says": test.says, "decides": test.kind is not None}
                for test in account.tests
            ],
        }
        for column, account in zip(program.columns, explanation.accounts, strict=True)
    ]
