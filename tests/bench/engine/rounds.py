"""Runs lanes in turns and says how they compare."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Sequence
from itertools import islice

import torch

from tests.bench.engine.lanes import WARM_UP, Lane
from tests.bench.engine.models import Inputs, Subject

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
            _microseconds(lane, arguments, device)
    times: Times = {lane.name: [] for lane in lanes}
    gc.disable()
    for _ in range(subject.rounds):
        turn = list(islice(inputs, subject.turn))
        for lane in order.sample(lanes, len(lanes)):
            spent = (_microseconds(lane, arguments, device) for arguments in turn)
            times[lane.name].append(min(spent))
    gc.enable()
    return times


def _microseconds(lane: Lane, arguments: Inputs, device: torch.device) -> float:
    with lane.around():
        began = now(device)
        lane.call(arguments)
        return (now(device) - began) / 1e3


def now(device: torch.device) -> int:
    """Nanoseconds: of a GPU by the clock once it is idle, else of this thread's CPU time."""
    if device.type != "cuda":
        return time.thread_time_ns()
    torch.cuda.synchronize(device)
    return time.perf_counter_ns()


def quartiles(values: Sequence[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def table(lanes: Sequence[Lane], times: Times) -> None:
    """The time, and ratio and difference to the lane compared with: medians with quartiles."""
    print(f"  {'':46} {'ms':>8}  {'ratio':26} {'us more':26}  than")
    for lane in lanes:
        mine, other = times[lane.name], times[lane.against]
        line = f"  {lane.name:46} {statistics.median(mine) / 1e3:8.3f}"
        if lane.name != lane.against:
            pairs = list(zip(mine, other, strict=True))
            ratio = quartiles([a / b for a, b in pairs], ".4f")
            more = quartiles([a - b for a, b in pairs], ".0f")
            line += f"  {ratio:26} {more:26}  {lane.against}"
        print(line)


def shares(lanes: Sequence[Lane], times: Times) -> None:
    """Cached steps in terms of the first block's own time, the rest of the forward left out."""
    first, none = times["plain, first block alone"], times["plain, no blocks"]
    for lane in lanes:
        if lane.against == "plain, first block alone":
            found = [
                (a - c) / (b - c) for a, b, c in zip(times[lane.name], first, none, strict=True)
            ]
            print(f"  {lane.name}: {quartiles(found, '.3f')} of the first block's own time")
