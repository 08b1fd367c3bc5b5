"""Measures the demo model as placements have it, in rounds of all of them in one process.

Run it with `make bench-placement`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from executor.engine import run as engine
from executor.engine.program import Branch, Column, Op, OpKind, Program
from executor.placement.device import DeviceChoice, DtypeChoice
from executor.placement.load import LoadedPipeline, load
from executor.placement.quantization import NOTHING, Quantization
from executor.placement.quantize import stored_bytes

MODEL = Path(__file__).parents[2] / "deploy" / "demo" / "model"
LISTS = ("transformer_blocks", "single_transformer_blocks")
STEPS = 28
EXCLUDED = ("embed", "embedder")
SPEC = engine.RunSpec("a yellow star at the top right on a blue background", 64, 64, seed=1)


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
        Lane("eager"),
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.placement", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    # The first run is to show what compiling costs where it was never done.
    torch._inductor.config.force_disable_caches = True
    lanes = _lanes()
    held = [
        load(
            str(MODEL),
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
    print(
        f"demo model, {STEPS} steps of 64 x 64 pixels, one thread, {rounds} rounds; "
        "medians (quartiles) of ratios to eager within a round"
    )
    print(f"  {'':30}{'speed-up':22}{'weights':>10}  {'latents':>9}  first run")
    for lane, loaded, own, (once, latents) in zip(lanes, held, seconds, first, strict=True):
        ratios = [a / b for a, b in zip(seconds[0], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        weights = sum(stored_bytes(p) for p in loaded.pipeline.transformer.parameters())
        error = float((latents - first[0][1]).norm() / first[0][1].norm())
        print(
            f"  {lane.name:30}{f'{middle:.2f} ({low:.2f} to {high:.2f})':22}"
            f"{weights / 2**20:6.2f} MiB  {error:9.1e}  {once:6.1f} s"
        )


if __name__ == "__main__":
    main()
