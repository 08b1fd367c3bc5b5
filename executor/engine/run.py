"""Runs one program on a pipeline, from prompt to picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from executor.engine.program import Program, StepOutcome


class RunCancelled(Exception):
    """The run was cancelled before its last step ended."""


class ProgramMismatchError(ValueError):
    """The program does not fit the pipeline; the message says what differs."""


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
    latents: torch.Tensor
    steps: tuple[StepOutcome, ...]
    denoise_seconds: float
    total_seconds: float


def check(pipeline: Any, program: Program) -> None:
    """Raises ProgramMismatchError where the program could not run on the pipeline."""
    raise NotImplementedError


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
    raise NotImplementedError
