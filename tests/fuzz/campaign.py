"""Compiles damaged configs, and tells what no input may cause."""

from __future__ import annotations

import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.diagnostics import has_errors
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name
from tests.fuzz.mutations import mutated

MAX_SECONDS = 1.0
MAX_GROWTH_MB = 300.0
_STEPS = (None, 1, 8, 28, 50, 1000)
_WORLD_SIZES = (None, 1, 2, 4, 8)
_ROOT = Path(__file__).parents[2]

Compile = Callable[[bytes, ModelFacts, Request], Compilation]


@dataclass
class Verdict:
    """``findings`` are texts with what they caused."""

    compiled: int = 0
    refused: int = 0
    worst_seconds: float = 0.0
    peak_mb: float = 0.0
    growth_mb: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)


def examples() -> list[bytes]:
    files = [p for d in ("examples", "demo") for p in (_ROOT / "deploy" / d).glob("*.yaml")]
    return [file.read_bytes() for file in sorted(files)]


def fuzz(
    cases: int, seed: int, compile: Compile = compile_config, *, max_seconds: float = MAX_SECONDS
) -> Verdict:
    choices = random.Random(seed)
    texts = examples()
    models = [from_name(name) for name in NAMED]
    for text in texts:
        compile_config(text, models[0], Request())
    verdict = Verdict()
    before = _peak_mb()
    for _ in range(cases):
        text = mutated(texts, choices)
        request = Request(
            num_inference_steps=choices.choice(_STEPS), world_size=choices.choice(_WORLD_SIZES)
        )
        _try(verdict, compile, text, choices.choice(models), request, max_seconds)
        verdict.peak_mb = _peak_mb()
        verdict.growth_mb = verdict.peak_mb - before
        if verdict.growth_mb > MAX_GROWTH_MB:
            # The mark never falls again: the first text above it is the one to look at.
            verdict.findings.append((text, f"memory grew by {verdict.growth_mb:.0f} MB"))
            break
    return verdict


def _try(
    verdict: Verdict,
    compile: Compile,
    text: bytes,
    model: ModelFacts,
    request: Request,
    max_seconds: float,
) -> None:
    start = time.process_time()
    try:
        compilation = compile(text, model, request)
    except Exception:
        case = f"{model.architecture.family}, {request}"
        verdict.findings.append((text, f"{case}\n{traceback.format_exc()}"))
        return
    seconds = time.process_time() - start
    verdict.worst_seconds = max(verdict.worst_seconds, seconds)
    if seconds > max_seconds:
        verdict.findings.append((text, f"{seconds:.2f} s"))
    if (compilation.program is None) is not has_errors(compilation.diagnostics):
        verdict.findings.append((text, "a plan in spite of errors, or neither of them"))
    if compilation.program is None:
        verdict.refused += 1
    else:
        verdict.compiled += 1


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
