"""Runs one program on a pipeline, from prompt to picture or film."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from executor.engine.execution import Execution, ProgramMismatchError
from executor.engine.pipelines import PIPELINES, PipelineCall, RunSpec, UnusableSpecError
from executor.engine.program import Program, StepOutcome
from executor.engine.sharing import Exchanges, Sharing
from executor.engine.step_clock import StepClock

__all__ = [
    "ProgramMismatchError",
    "RunCancelled",
    "RunResult",
    "RunSpec",
    "UnusableSpecError",
    "check",
    "run",
]


class RunCancelled(Exception):
    """The run was cancelled before its last step ended."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """``frames`` of a film, shown ``fps`` a second; a picture is one frame and has no ``fps``.

    ``latents`` are the final ones as the scheduler left them, fp32 on the CPU. ``cache_bytes``: the
    most that each column's cache held. ``exchanges``: what this rank exchanged with others.
    """

    frames: tuple[Image, ...]
    fps: int | None
    latents: Tensor
    steps: tuple[StepOutcome, ...]
    denoise_seconds: float
    total_seconds: float
    cache_bytes: tuple[int, ...]
    exchanges: Exchanges


def check(pipeline: Any, program: Program) -> None:
    """Raises ProgramMismatchError where the program could not run on the pipeline."""
    Execution(_targets(pipeline, program), program)


def run(
    pipeline: Any,
    program: Program,
    spec: RunSpec,
    *,
    sharing: Sharing | None = None,
    on_step: Callable[[StepOutcome], None] = lambda outcome: None,
    is_cancelled: Callable[[int], bool] = lambda step: False,
    decodes: bool = True,
) -> RunResult:
    """Denoises as the program says.

    ``sharing``: the ranks that share the run; each of them runs the same program and spec.
    ``on_step`` is called after every step and must not block. ``is_cancelled`` is asked before
    every forward of this rank and after every step, with the step that would be run on. A rank that
    does not decode has no frames in its result.

    Raises:
        RunCancelled: ``is_cancelled`` said so.
        ProgramMismatchError: the program does not fit the pipeline.
        UnusableSpecError: the pipeline cannot take what the spec asks for.
    """

    def stop_if_cancelled(step: int) -> None:
        if is_cancelled(step):
            raise RunCancelled

    def before_forward(step: int) -> None:
        stop_if_cancelled(step)
        clock.begin()

    def tell(outcomes: Iterable[StepOutcome]) -> None:
        for outcome in outcomes:
            steps.append(outcome)
            on_step(outcome)

    call = _call(pipeline)
    clock = StepClock(pipeline._execution_device)
    execution = Execution(_targets(pipeline, program), program, before_forward, sharing)
    steps: list[StepOutcome] = []
    latents: list[Tensor] = []

    def end_step(stepped: Tensor) -> None:
        tell(clock.end_step(execution.step, execution.end_step()))
        latents[:] = [stepped]
        stop_if_cancelled(execution.step)

    began = time.perf_counter()
    with (
        nullcontext() if sharing is None else sharing.attached(pipeline),
        execution.attached(),
        call.guided(pipeline, spec),
        _watched(pipeline.scheduler, end_step),
    ):
        output = pipeline(
            num_inference_steps=len(program.steps),
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            output_type="pil" if decodes else "latent",
            **call.arguments(pipeline, spec),
        )
    tell(clock.finish())
    if len(steps) != len(program.steps):
        raise ProgramMismatchError(
            f"the pipeline ran {len(steps)} steps, the program has {len(program.steps)}"
        )
    frames = (output.images[:1] if call.fps is None else output.frames[0]) if decodes else ()
    return RunResult(
        frames=tuple(frames),
        fps=call.fps and (spec.fps or call.fps),
        latents=latents[0].float().cpu(),
        steps=tuple(steps),
        denoise_seconds=sum(step.milliseconds for step in steps) / 1e3,
        total_seconds=time.perf_counter() - began,
        cache_bytes=execution.cache_bytes,
        exchanges={} if sharing is None else sharing.exchanges,
    )


def _call(pipeline: Any) -> PipelineCall:
    name = type(pipeline).__name__
    if name not in PIPELINES:
        raise ProgramMismatchError(f"{name} is no pipeline that runs are made of")
    return PIPELINES[name]


@contextmanager
def _watched(scheduler: Any, end_step: Callable[[Tensor], None]) -> Iterator[None]:
    """Tells of every step that this one scheduler takes, with the latents that come of it.

    Every pipeline steps its scheduler once a step; not all of them offer a callback.
    """
    step = scheduler.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        end_step(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    scheduler.step = watched
    try:
        yield
    finally:
        del scheduler.step


def _targets(pipeline: Any, program: Program) -> Mapping[str, nn.Module]:
    names = {column.target for column in program.columns}
    return {name: module for name in names if (module := getattr(pipeline, name, None)) is not None}
