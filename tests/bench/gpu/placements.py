"""What steps take, and what they hold, as placements have a transformer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import nn

from executor.engine.execution import Execution
from executor.placement.compiling import compile_blocks
from executor.placement.offload import HOST, Offload, place
from executor.placement.quantization import Quantization
from executor.placement.quantize import quantize, stored_bytes
from tests.bench.engine.models import Subject
from tests.bench.engine.rounds import now
from tests.bench.gpu.scale import Scale
from tests.bench.report import Cell, Figure, Table
from tests.executor.engine.programs import flux_program

STEPS = 3
"""Of a kind; two more go before them."""
_EXCLUDED = ("embed", "embedder")
_HEADINGS = (
    *("", "computed step", "speed-up", "cached step", "speed-up"),
    *("weights", "held at most", "first step"),
)


class Alone:
    """A pipeline that is a transformer and nothing else."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        self.components = {"transformer": transformer}


Prepare = Callable[[Alone, torch.device], object]


def quantized(kind: str) -> Prepare:
    return lambda alone, device: quantize(alone, Quantization(kind, _EXCLUDED), device)


def compiled(alone: Alone, device: torch.device) -> None:
    compile_blocks(alone)


def _both(alone: Alone, device: torch.device) -> None:
    quantized("float8_per_row")(alone, device)
    compile_blocks(alone)


def offloaded(alone: Alone, device: torch.device) -> None:
    alone.transformer.to(HOST)
    place(alone, device, Offload(dit_layerwise=True))


def eager(alone: Alone, device: torch.device) -> None:
    """As it is."""


PLACEMENTS: Mapping[str, Prepare] = {
    "eager": eager,
    "compiled": compiled,
    **{
        kind: quantized(kind)
        for kind in ("float8_per_row", "float8_per_tensor", "float8_per_block", "int8_weight_only")
    },
    "float8_per_row, compiled": _both,
    "--dit-layerwise-offload": offloaded,
}


@torch.no_grad()
def placements(scale: Scale, kinds: Mapping[str, Prepare] = PLACEMENTS) -> Table:
    """A computed and a cached step of each; every one has weights of its own.

    The first is what the others are compared with; one that fails says why.
    """
    rows: list[tuple[Cell, ...]] = []
    plain: list[float] = []
    for name, prepare in kinds.items():
        try:
            steps, *held = _measured(scale, prepare)
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            rows.append((name, why, *[""] * (len(_HEADINGS) - 2)))
        else:
            first, *kinds_of_steps = steps
            figures = [Figure.of(each, ".2f", " ms") for each in kinds_of_steps]
            plain = plain or [each.value for each in figures]
            compared = (
                (figure, Figure(than / figure.value, unit="x"))
                for figure, than in zip(figures, plain, strict=True)
            )
            cells = (cell for pair in compared for cell in pair)
            rows.append((name, *cells, *held, Figure(first[0] / 1e3, ".1f", " s")))
        gc.collect()
    return Table(
        f"Placements of {scale.title}, {STEPS} steps of a kind",
        _HEADINGS,
        tuple(rows),
    )


def _measured(scale: Scale, prepare: Prepare) -> tuple[list[list[float]], Cell, Cell]:
    """Milliseconds of steps, bytes of weights, and the most that a GPU held."""
    alone = Alone(scale.build())
    prepare(alone, scale.device)
    on_gpu = scale.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(scale.device)
    steps = _milliseconds(alone.transformer, scale)
    weights = sum(stored_bytes(parameter) for parameter in alone.transformer.parameters())
    return (
        steps,
        _memory(weights),
        _memory(torch.cuda.max_memory_allocated(scale.device)) if on_gpu else "",
    )


def _memory(nbytes: int) -> Figure:
    return Figure(nbytes / 2**30, ".2f", " GiB")


def _milliseconds(transformer: Any, scale: Scale) -> list[list[float]]:
    """Of the first step, of those that compute and of those that cache."""
    strip = "11" + "1" * STEPS + "00" + "0" * STEPS
    execution = Execution({"transformer": transformer}, flux_program(strip))
    inputs = Subject("", transformer, 1, scale.image_tokens, scale.text_tokens, 1).inputs()
    spent = []
    with execution.attached():
        for arguments in islice(inputs, len(strip)):
            began = now(scale.device)
            transformer(**arguments)
            execution.end_step()
            spent.append((now(scale.device) - began) / 1e6)
    return [spent[:1], spent[2 : 2 + STEPS], spent[-STEPS:]]
