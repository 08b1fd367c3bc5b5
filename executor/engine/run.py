"""Runs one program on a pipeline, from prompt to picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from executor.engine.execution import Execution, ProgramMismatchError
from executor.engine.program import Program, StepOutcome
from executor.engine.step_clock import StepClock

__all__ = ["ProgramMismatchError", "RunCancelled", "RunResult", "RunSpec", "check", "run"]


class RunCancelled(Exception):
    """The run was cancelled before its last step ended."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What to draw. Sizes in pixels; ``guidance_scale`` None leaves the pipeline's default."""

    prompt: str
    height: int
    width: int
    seed: int
    guidance_scale: float | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """``latents`` are the final ones as the scheduler left them, fp32 on the CPU."""

    images: list[Image]
    latents: Tensor
    steps: tuple[StepOutcome, ...]
    denoise_seconds: float
    total_seconds: float


def check(pipeline: Any, program: Program) -> None:
    """Raises ProgramMismatchError where the program could not run on the pipeline."""
    Execution(_targets(pipeline, program), program)


def run(
    pipeline: Any,
    program: Program,
    spec: RunSpec,
    *,
    on_step: Callable[[StepOutcome], None] = lambda outcome: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Denoises as the program says.

    ``on_step`` is called after every step and must not block. ``is_cancelled`` is asked before
    every forward and after every step.

    Raises:
        RunCancelled: ``is_cancelled`` said so.
        ProgramMismatchError: the program does not fit the pipeline.
    """

    def stop_if_cancelled() -> None:
        if is_cancelled():
            raise RunCancelled

    def before_forward() -> None:
        stop_if_cancelled()
        clock.begin()

    def tell(outcomes: Iterable[StepOutcome]) -> None:
        for outcome in outcomes:
            steps.append(outcome)
            on_step(outcome)

    clock = StepClock(pipeline.device)
    execution = Execution(_targets(pipeline, program), program, before_forward)
    steps: list[StepOutcome] = []
    latents: list[Tensor] = []

    def end_step(_: Any, step: int, timestep: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
        tell(clock.end_step(step, execution.end_step()))
        latents[:] = [state["latents"]]
        stop_if_cancelled()
        return {}

    began = time.perf_counter()
    with execution.attached():
        output = pipeline(
            prompt=spec.prompt,
            height=spec.height,
            width=spec.width,
            num_inference_steps=len(program.steps),
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=end_step,
            callback_on_step_end_tensor_inputs=["latents"],
            **_optional_arguments(pipeline, spec),
        )
    tell(clock.finish())
    if len(steps) != len(program.steps):
        raise ProgramMismatchError(
            f"the pipeline ran {len(steps)} steps, the program has {len(program.steps)}"
        )
    return RunResult(
        images=list(output.images),
        latents=latents[0].float().cpu(),
        steps=tuple(steps),
        denoise_seconds=sum(step.milliseconds for step in steps) / 1e3,
        total_seconds=time.perf_counter() - began,
    )


def _targets(pipeline: Any, program: Program) -> Mapping[str, nn.Module]:
    names = {column.target for column in program.columns}
    return {name: module for name in names if (module := getattr(pipeline, name, None)) is not None}


def _optional_arguments(pipeline: Any, spec: RunSpec) -> dict[str, Any]:
    """Arguments of the call that depend on the request or on the checkpoint's tokenizer."""
    arguments: dict[str, Any] = {}
    if spec.guidance_scale is not None:
        arguments["guidance_scale"] = spec.guidance_scale
    # The padding that the checkpoint was trained with, where it is shorter than the usual 512.
    tokenizer = getattr(pipeline, "tokenizer_2", None)
    if tokenizer is not None:
        arguments["max_sequence_length"] = min(512, tokenizer.model_max_length)
    return arguments
