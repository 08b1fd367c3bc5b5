"""A run on a terminal: one glyph a step, full steps told from cached ones."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from ditplan.v1 import generation_pb2, plan_pb2
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from planner.compile.plan import OpKind
from planner.render.canvas import Canvas

_STYLES = {OpKind.FULL: "blue", OpKind.CACHED: "green"}


def step_kind(outcome: generation_pb2.StepOutcome) -> OpKind:
    """FULL if any column of the step computed every block."""
    full = any(op.kind == plan_pb2.OP_KIND_FULL for op in outcome.ops)
    return OpKind.FULL if full else OpKind.CACHED


class RunProgress:
    """Shows the events of generations on standard error, one line each.

    On a terminal the line fills up as steps end; elsewhere it is printed when the run has ended.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._canvas = Canvas(ascii=not (console.encoding or "").lower().startswith("utf"))
        self._live = console.is_terminal
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            _Strip(self._canvas),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def follow(
        self, title: str, events: Iterable[generation_pb2.GenerationEvent]
    ) -> generation_pb2.Generation | None:
        """Shows the events and gives the finished generation; None if they end before it does."""
        kinds: list[OpKind] = []
        task = self._progress.add_task(title, total=1, kinds=kinds, note="")
        finished = None
        for event in events:
            match event.WhichOneof("event"):
                case "planned":
                    self._progress.update(task, total=len(event.planned.plan.program.steps))
                case "queued":
                    self._progress.update(task, note=event.queued.reason or "queued")
                case "started":
                    kinds.clear()
                    self._progress.update(task, completed=0, note="")
                case "step":
                    kinds.append(step_kind(event.step))
                    self._progress.update(task, completed=len(kinds), note=_note(event.step))
                case "finished":
                    finished = event.finished
        self._progress.update(task, note="")
        if not self._live:
            glyphs = "".join(self._canvas.glyph(kind) for kind in kinds)
            self._console.print(f"{title} {glyphs} {len(kinds)} steps", highlight=False)
        return finished


class _Strip(ProgressColumn):
    """The glyphs of the steps so far, coloured by kind."""

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self._canvas = canvas

    def render(self, task: Task) -> Text:
        text = Text()
        for kind in task.fields["kinds"]:
            text.append(self._canvas.glyph(kind), style=_STYLES[kind])
        return text.append(" " * int((task.total or 0) - len(task.fields["kinds"])))


def _note(step: generation_pb2.StepOutcome) -> str:
    diffs = [op.residual_diff for op in step.ops if op.HasField("residual_diff")]
    diff = f", residual diff {max(diffs):.3f}" if diffs else ""
    return f"{step.milliseconds:.0f} ms{diff}"
