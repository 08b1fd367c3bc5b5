"""The demo model as placements have it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from executor.engine import run as engine
from executor.engine.program import Branch, Column, Op, OpKind, Program
from executor.placement.device import DeviceChoice, DtypeChoice
from executor.placement.load import LoadedPipeline, load
from executor.placement.quantization import NOTHING, Quantization
from executor.placement.quantize import stored_bytes
from tests.bench.inputs import DEMO
from tests.bench.report import Cell, Claim, Figure, Findings, Table

LISTS = ("transformer_blocks", "single_transformer_blocks")
STEPS = 28
EAGER = "eager"
EXCLUDED = ("embed", "embedder")
SPEC = engine.RunSpec("a yellow star at the top right on a blue background", 64, 64, seed=1)

_METHOD = """\
Whole runs of one process on one thread, from prompt to picture, without a cache, by the \
processor's time; one run of every placement in a round, speed-ups over eager float32 within it. \
Latents are compared with eager's by the norm of the difference. The first run compiles, with no \
compiler's cache to help."""


@dataclass(frozen=True)
class Lane:
    name: str
    quantization: Quantization = NOTHING
    compiled: bool = False
    dtype: DtypeChoice = DtypeChoice.FLOAT32


def _lanes() -> list[Lane]:
    kinds = ("int8_weight_only", "int8_per_row", "float8_weight_only")
    quantized = [Lane(kind, Quantization(kind, EXCLUDED)) for kind in kinds]
    return [
        Lane(EAGER),
        Lane("compiled", compiled=True),
        *quantized,
        *(Lane(f"{lane.name}, compiled", lane.quantization, True) for lane in quantized),
        Lane("bfloat16", dtype=DtypeChoice.BFLOAT16),
        Lane("bfloat16, compiled", compiled=True, dtype=DtypeChoice.BFLOAT16),
    ]


def _run(loaded: LoadedPipeline) -> tuple[float, torch.Tensor]:
    """Processor seconds of a whole run, and its picture's latents."""
    program = Program((Column("transformer", Branch.COND, LISTS),), ((Op(OpKind.FULL),),) * STEPS)
    began = time.process_time()
    latents = engine.run(loaded.pipeline, program, SPEC).latents
    return time.process_time() - began, latents


def measure(*, look: bool) -> Findings:
    """Every placement once a round, all of them in one process."""
    torch.set_num_threads(1)
    rounds = 2 if look else 7
    # The first run is to show what compiling costs where it was never done.
    torch._inductor.config.force_disable_caches = True
    lanes = _lanes()[:3] if look else _lanes()
    held = [
        load(
            str(DEMO),
            device=DeviceChoice.CPU,
            dtype=lane.dtype,
            quantization=lane.quantization,
            compiled=lane.compiled,
        )
        for lane in lanes
    ]
    # Compiles.
    first = [_run(loaded) for loaded in held]
    seconds: list[list[float]] = [[] for _ in lanes]
    for _ in range(rounds):
        for own, loaded in zip(seconds, held, strict=True):
            own.append(_run(loaded)[0])
    rows: list[tuple[Cell, ...]] = []
    for lane, loaded, own, (once, latents) in zip(lanes, held, seconds, first, strict=True):
        speed_up = Figure.of([a / b for a, b in zip(seconds[0], own, strict=True)])
        weights = sum(stored_bytes(p) for p in loaded.pipeline.transformer.parameters())
        error = float((latents - first[0][1]).norm() / first[0][1].norm())
        rows.append(
            (
                lane.name,
                "" if lane.name == EAGER else speed_up,
                Figure(weights / 2**20, ".2f", " MiB"),
                Figure(error, ".1e"),
                Figure(once, ".1f", " s"),
            )
        )
    return Findings(
        "Placements",
        _METHOD,
        (
            Table(
                f"The demo model, {STEPS} steps of {SPEC.width} x {SPEC.height} pixels, "
                f"{rounds} rounds",
                ("", "speed-up", "weights", "latents off by", "first run"),
                tuple(rows),
            ),
        ),
        claims=(
            Claim("a run of the demo model with compiled blocks: speed-up", rows[1][1], "1", EAGER),
        ),
    )
