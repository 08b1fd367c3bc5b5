"""What steps cost: the planner, which compiles them, and the engine, which runs them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import islice

import torch

from executor.engine.execution import Execution
from executor.engine.program import AdaptiveRule, Calibrator, TaylorSeer
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.resolve import from_name
from tests.bench.engine.models import Subject
from tests.bench.growth.compiling import compile_plot
from tests.bench.growth.curve import Curve, points, says
from tests.bench.growth.subjects import near_empty
from tests.bench.inputs import CONFIG, FLUX
from tests.bench.report import Plot
from tests.executor.engine.programs import flux_program

BLOCKS = 20
WARM_UP = 8
RULE = AdaptiveRule(0.12, max_continuous_cached_steps=2)
"""Of cache.yaml, as is what follows the warm-up."""


def by_steps(*, look: bool) -> tuple[Plot, Plot]:
    counts = points(8, 1000, 3 if look else 8)
    return compiling(counts, 5 if look else 30), running(counts, 1 if look else 5)


def compiling(counts: tuple[int, ...], runs: int) -> Plot:
    text, model = CONFIG.read_text(), from_name(FLUX)
    compiles = [partial(compile_config, text, model, Request(count)) for count in counts]
    return compile_plot("Compiling by steps", "FLUX.1-dev", counts, "step", compiles, runs)


def running(counts: tuple[int, ...], rounds: int) -> Plot:
    """Milliseconds a step, of whole runs."""
    subject = near_empty(BLOCKS)
    kinds = {"ditplan": _planned, "plain diffusers": _plain}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for work in kinds.values():
        work(subject, counts[0])
    for n in counts:
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(max(rounds, 3 if n < 100 else 1)):
            for kind, work in kinds.items():
                times[kind].append(work(subject, n))
        for kind in kinds:
            found[kind].append(statistics.median(times[kind]))
    ours, plain = (Curve(counts, tuple(found[kind]), "steps", "step") for kind in kinds)
    return Plot(
        "growth-steps-run",
        f"A step by the steps of its run, {BLOCKS} near-empty blocks",
        "steps of the run",
        "ms of processor time a step",
        (
            ours.series("ditplan", "adaptive steps, TaylorSeer"),
            plain.series("diffusers", "no cache", dashed=True),
        ),
        says("A step of ditplan, in a run", ours) + " " + says("Of plain diffusers", plain),
        log=True,
    )


def _planned(subject: Subject, steps: int) -> float:
    strip = ("1" * WARM_UP + "?" * steps)[:steps]
    calibrator = Calibrator(forecast=TaylorSeer(1))
    program = flux_program(strip, rule=RULE, calibrator=calibrator)
    execution = Execution({"transformer": subject.transformer}, program)
    with execution.attached():
        return _step(subject, steps, execution.end_step)


def _plain(subject: Subject, steps: int) -> float:
    return _step(subject, steps, lambda: None)


@torch.no_grad()
def _step(subject: Subject, steps: int, end_step: Callable[[], object]) -> float:
    inputs = list(islice(subject.inputs(), 8))
    gc.collect()
    began = time.thread_time()
    for step in range(steps):
        subject.transformer(**inputs[step % len(inputs)])
        end_step()
    return (time.thread_time() - began) / steps * 1e3
