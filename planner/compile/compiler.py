"""Compiles an acceleration config for a model and a request into a program."""

from __future__ import annotations

from dataclasses import dataclass

from planner.compile.plan import Estimate, Program
from planner.diagnostics import Diagnostic
from planner.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Request:
    """What a run asks for; None leaves it to the model's default. Sizes in pixels."""

    num_inference_steps: int | None = None
    world_size: int | None = None
    height: int | None = None
    width: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True, slots=True)
class Compilation:
    """A program with its estimate, or None for both when ``diagnostics`` hold an error.

    ``request`` has every default filled in.
    """

    program: Program | None
    estimate: Estimate | None
    request: Request
    diagnostics: tuple[Diagnostic, ...]


def compile_config(config: str | bytes, model: ModelFacts, request: Request) -> Compilation:
    """Compiles YAML or JSON text; an empty text is no acceleration. Never raises on bad input."""
    raise NotImplementedError


def compile_program(program: Program, request: Request) -> Compilation:
    """Checks a finished program (a replay, a stored plan) as if it had just been compiled."""
    raise NotImplementedError
