"""One frame of ``ditplan top``: a status as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ditplan.v1 import monitor_pb2
from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.cli.progress import step_kind
from planner.render.canvas import Canvas
from planner.render.placements import device_in_words, placement_in_words
from planner.render.words import KIND_WORDS, short_id

# Less is the way from one call to the next.
SILENT_SECONDS = 1.0
_BAR = 20
_STATE_STYLES = {"idle": "green", "running": "blue"}

Rows = Sequence[Sequence[str | Text]]


def frame(
    status: monitor_pb2.WatchStatusResponse,
    address: str,
    canvas: Canvas,
    *,
    note: str = "",
    rows: int | None = None,
) -> Group:
    """What a status says, at most so many rows of each table; ``note`` goes below its head."""
    busy = [each for each in status.executors if each.HasField("run")]
    head = f"{status.version} at {address}, {status.time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
    parts: list[Text | Table] = [Text(canvas.show(head), style="bold"), Text(_counts(status))]
    if note:
        parts.append(Text(canvas.show(note), style="yellow"))
    for columns, found in (
        (
            ("executor", "model", "device", "holds", "state"),
            [_executor(each, canvas) for each in status.executors],
        ),
        (
            ("running", "executor", "plan", "steps", "last step", "for"),
            [_run(each, status, canvas) for each in busy],
        ),
        (
            ("queued", "model", "priority", "for"),
            [_queued(each, canvas) for each in status.queue],
        ),
    ):
        if found:
            shown = found[:rows]
            # Of the queue a status holds the head only.
            count = status.queued if columns[0] == "queued" else len(found)
            parts += [Text(), _table(columns, shown)]
            if count > len(shown):
                parts.append(Text(f"and {count - len(shown)} more", style="dim"))
    return Group(*parts)


def ago(seconds: float) -> str:
    """A length of time in at most two units, e.g. "3 m 20 s"."""
    whole = max(0, int(seconds))
    for name, size, smaller, rest in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // rest} {smaller}"
    return f"{whole // 60} m {whole % 60} s" if whole >= 60 else f"{whole} s"


def _counts(status: monitor_pb2.WatchStatusResponse) -> str:
    waits = ""
    if status.queued:
        work = ago(sum(each.queued_seconds for each in status.work))
        waits = f", the oldest for {ago(status.oldest_queued_seconds)}, about {work} of work"
    count = len(status.executors)
    return (
        f"{status.queued} queued{waits}; {status.running} running; "
        f"{count or 'no'} executor{'s' * (count != 1)} connected"
    )


def _table(columns: Sequence[str], rows: Rows) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _cells(canvas: Canvas, *texts: str) -> Iterator[Text]:
    return (Text(canvas.show(text)) for text in texts)


def _executor(each: monitor_pb2.ExecutorStatus, canvas: Canvas) -> Sequence[Text]:
    executor = each.executor
    state = "running" if each.HasField("run") else "idle"
    style = _STATE_STYLES[state]
    if each.silent_seconds >= SILENT_SECONDS:
        silent = f"silent for {ago(each.silent_seconds)}"
        state, style = silent if state == "idle" else f"{state}, {silent}", "yellow"
    device, holds = device_in_words(executor), placement_in_words(executor)
    return *_cells(canvas, executor.name, executor.model, device, holds), Text(state, style)


def _run(
    each: monitor_pb2.ExecutorStatus, status: monitor_pb2.WatchStatusResponse, canvas: Canvas
) -> Sequence[Text]:
    run = each.run
    since = (status.time.ToMicroseconds() - run.start_time.ToMicroseconds()) / 1e6
    again = f", attempt {run.attempt}" if run.attempt > 1 else ""
    name = run.generation.removeprefix("generations/")
    return (
        *_cells(canvas, name, each.executor.name, short_id(run.plan_id)),
        Text(f"{_bar(run, canvas)} {run.steps_done}/{run.step_count}"),
        Text(_last_step(run)),
        Text(f"{ago(since)}{again}"),
    )


def _bar(run: monitor_pb2.RunStatus, canvas: Canvas) -> str:
    done = _BAR * run.steps_done // max(1, run.step_count)
    full, rest = ("#", ".") if canvas.ascii else ("█", "░")
    return full * done + rest * (_BAR - done)


def _last_step(run: monitor_pb2.RunStatus) -> str:
    if not run.HasField("last_step") or not run.last_step.ops:
        return ""
    return f"{KIND_WORDS[step_kind(run.last_step)]}, {run.last_step.milliseconds:.0f} ms"


def _queued(each: monitor_pb2.QueuedGeneration, canvas: Canvas) -> Sequence[Text]:
    name = each.generation.removeprefix("generations/")
    priority, waited = str(each.priority), ago(each.waited_seconds)
    return *_cells(canvas, name, each.model), Text(priority), Text(waited)
