"""Runs lanes in turns and tells how they compare."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Sequence
from itertools import islice

import torch

from tests.bench.engine.lanes import WARM_UP, Lane
from tests.bench.engine.models import LISTS, Inputs, Subject
from tests.bench.report import Cell, Figure, Table

Times = dict[str, list[float]]


@torch.no_grad()
def rounds(subject: Subject, lanes: Sequence[Lane]) -> Times:
    """Microseconds of every lane in every round, by name.

    A round gives every lane a turn, in an order drawn anew, on the same inputs. What counts is the
    CPU time of this one thread, which other processes hardly touch, or how long a GPU takes.
    """
    device = next(subject.transformer.parameters()).device
    inputs, order = subject.inputs(), random.Random(0)
    for _ in range(WARM_UP):
        arguments = next(inputs)
        for lane in lanes:
            _fastest(lane, [arguments], device)
    times: Times = {lane.name: [] for lane in lanes}
    gc.disable()
    for _ in range(subject.rounds):
        turn = list(islice(inputs, subject.turn))
        for lane in order.sample(lanes, len(lanes)):
            times[lane.name].append(_fastest(lane, turn, device))
    gc.enable()
    return times


def _fastest(lane: Lane, turn: Sequence[Inputs], device: torch.device) -> float:
    """Microseconds of the fastest forward of a turn, which what is around them has begun as a run
    does: Python and the caches of the CPU know the lane only from the second on.
    """
    with lane.around():
        return min(_nanoseconds(lane, arguments, device) for arguments in turn) / 1e3


def _nanoseconds(lane: Lane, arguments: Inputs, device: torch.device) -> int:
    began = now(device)
    lane.call(arguments)
    return now(device) - began


def now(device: torch.device) -> int:
    """Nanoseconds: of a GPU by the clock once it is idle, else of this thread's CPU time."""
    if device.type != "cuda":
        return time.thread_time_ns()
    torch.cuda.synchronize(device)
    return time.perf_counter_ns()


def ratios(times: Times, lane: str, to: str) -> list[float]:
    """Of two lanes, in every round."""
    return [a / b for a, b in zip(times[lane], times[to], strict=True)]


def more(times: Times, lane: str, than: str) -> list[float]:
    """Microseconds more, in every round."""
    return [a - b for a, b in zip(times[lane], times[than], strict=True)]


def steps(subject: Subject, lanes: Sequence[Lane], times: Times) -> Table:
    """The time of every lane, and how it compares with another."""
    rows: list[tuple[Cell, ...]] = []
    for lane in lanes:
        row: tuple[Cell, ...] = lane.name, Figure(statistics.median(times[lane.name]) / 1e3, ".3f")
        if lane.name == lane.against:
            row = *row, "", "", ""
        else:
            ratio = Figure.of(ratios(times, lane.name, lane.against), ".4f")
            row = *row, ratio, Figure.of(more(times, lane.name, lane.against), ".0f"), lane.against
        rows.append(row)
    blocks = sum(len(getattr(subject.transformer, name)) for name in LISTS)
    tokens = f"{subject.image_tokens} + {subject.text_tokens} tokens"
    return Table(
        f"A step of {subject.title}: {blocks} blocks, batch {subject.batch}, {tokens}, "
        f"{subject.rounds} rounds",
        ("", "ms", "ratio", "us more", "than"),
        tuple(rows),
    )


def shares(subject: Subject, lanes: Sequence[Lane], times: Times) -> Table:
    """Cached steps in terms of the first block's own time, the rest of the forward left out."""
    first, none = times["plain, first block alone"], times["plain, no blocks"]
    rows = []
    for lane in lanes:
        if lane.against == "plain, first block alone":
            own = zip(times[lane.name], first, none, strict=True)
            rows.append((lane.name, Figure.of([(a - c) / (b - c) for a, b, c in own], ".3f")))
    title = f"Cached steps of {subject.title}, without what stands outside the blocks"
    return Table(title, ("", "of the first block's own time"), tuple(rows))
