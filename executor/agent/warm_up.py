"""Runs a little of a plan before any work is taken: kernels load, blocks compile, memory is had."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2
from PIL import Image
from structlog.typing import FilteringBoundLogger

from executor.agent.settings import Settings, Size
from executor.codec_placement import quantization_to_proto
from executor.engine.pipelines import PIPELINES, Pictures
from executor.engine.run import RunCancelled
from executor.placement.errors import PlacementError
from executor.placement.load import LoadedPipeline
from executor.runtime.ranks import Ranks

STEPS = 2


def warm_up(
    ranks: Ranks, settings: Settings, *, is_cancelled: Callable[[], bool], log: FilteringBoundLogger
) -> None:
    """One run of the first steps for every size of the settings; no record knows of them.

    Raises:
        PlacementError: one of them failed; the message names its size.
    """
    program = _program(ranks.loaded, settings.plan)
    for size in settings.warmup:
        began = time.monotonic()
        try:
            ranks.run(
                plan_id(program),
                program,
                _spec(ranks.loaded, program, size),
                on_step=lambda outcome: None,
                is_cancelled=is_cancelled,
            )
        except RunCancelled:
            return
        except Exception as error:
            raise PlacementError(f"--warmup-resolutions {size}: {error}") from error
        log.info("warmed_up", size=str(size), seconds=round(time.monotonic() - began, 3))


def _program(loaded: LoadedPipeline, plan: plan_pb2.Program | None) -> plan_pb2.Program:
    """The first steps of a plan, or such that run the pipeline as it is."""
    program = plan_pb2.Program()
    if plan is not None:
        program.CopyFrom(plan)
        del program.steps[STEPS:]
    else:
        program.model.pipeline_class = loaded.checkpoint.pipeline_class
        share = loaded.share
        program.topology.world_size = share.world_size
        program.topology.ring_size = 1
        program.topology.ulysses_size = share.world_size // share.tp_size
        program.topology.tp_size = share.tp_size
        program.topology.extra_parallel_modules.extend(share.encoders)
        program.placement.CopyFrom(quantization_to_proto(loaded.quantization))
        program.steps.extend(plan_pb2.Step() for _ in range(STEPS))
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
