"""Runs a little of a plan before any work is taken: kernels load, blocks compile, memory is had."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import suppress

from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2
from PIL import Image
from structlog.typing import FilteringBoundLogger

from executor.agent.settings import Settings, Size
from executor.engine.pipelines import PIPELINES, Pictures
from executor.engine.program import StepOutcome
from executor.engine.run import RunCancelled
from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline
from executor.runtime.ranks import Ranks

STEPS = 2


def warm_up(
    ranks: Ranks, settings: Settings, *, is_cancelled: Callable[[], bool], log: FilteringBoundLogger
) -> None:
    """Runs the first steps of the settings' plan for every size; no record knows of them.

    Raises:
        PlacementError: one of the runs failed; the message names its size.
    """
    for size in settings.warmup:
        assert settings.plan is not None, "sizes come with a plan"
        began = time.monotonic()
        try:
            _run(ranks, _first_steps(settings.plan), size, is_cancelled)
        except Exception as error:
            raise PlacementError(f"--warmup-resolutions {size}: {error}") from error
        if is_cancelled():
            return
        log.info("warmed_up", size=str(size), seconds=round(time.monotonic() - began, 3))


def _run(
    ranks: Ranks, program: plan_pb2.Program, size: Size, is_cancelled: Callable[[], bool]
) -> None:
    done: list[StepOutcome] = []
    with suppress(RunCancelled):
        ranks.run(
            plan_id(program),
            program,
            _spec(ranks.loaded, program, size),
            on_step=done.append,
            is_cancelled=lambda: is_cancelled() or STEPS <= len(done) < len(program.steps),
        )


def _first_steps(plan: plan_pb2.Program) -> plan_pb2.Program:
    """Of a plan as much as a run needs that comes to its end, or to its first steps.

    Where the number of steps decides which transformer runs in which of them, it stays.
    """
    program = plan_pb2.Program()
    program.CopyFrom(plan)
    if len(plan.model.targets) == 1:
        del program.steps[STEPS:]
        program.num_inference_steps = len(program.steps)
    return program


def _spec(
    loaded: LoadedPipeline, program: plan_pb2.Program, size: Size
) -> generation_pb2.GenerationSpec:
    spec = generation_pb2.GenerationSpec(
        prompt="warm-up", seed=0, height=size.height, width=size.width, num_frames=size.num_frames
    )
    if any(column.branch == plan_pb2.BRANCH_UNCOND for column in program.columns):
        spec.negative_prompt = ""
    if PIPELINES[loaded.checkpoint.pipeline_class].pictures is not Pictures.NONE:
        data = io.BytesIO()
        Image.new("RGB", (size.width, size.height), "gray").save(data, "PNG")
        spec.images.add(data=data.getvalue())
    return spec
