"""What a GPU can hold and how: quantized, compiled, offloaded, other attention."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from executor.engine import run as engine
from executor.engine.program import (
    AdaptiveRule,
    Branch,
    Calibrator,
    Column,
    Op,
    OpKind,
    Program,
    TaylorSeer,
)
from executor.errors import PlacementError
from executor.placement.device import DeviceChoice, DtypeChoice
from executor.placement.load import LoadedPipeline, load
from executor.placement.offload import RESIDENT, Offload
from executor.placement.quantization import LEAST_CAPABILITY, NOTHING, TYPES, Quantization
from executor.placement.quantize import stored_bytes

MODEL = Path(__file__).parents[2] / "deploy" / "demo" / "model"
LISTS = ("transformer_blocks", "single_transformer_blocks")
SPEC = engine.RunSpec("a yellow star at the top right on a blue background", 64, 64, seed=1)
STEPS = 12
UNCACHED = Program((Column("transformer", Branch.COND, LISTS),), ((Op(OpKind.FULL),),) * STEPS)
_TAYLOR = Column("transformer", Branch.COND, LISTS, 1, 0, Calibrator(forecast=TaylorSeer(1)))
_KINDS = {
    "1": Op(OpKind.FULL),
    "0": Op(OpKind.CACHED),
    "?": Op(OpKind.ADAPTIVE, AdaptiveRule(0.3)),
}
CACHED = Program((_TAYLOR,), tuple((_KINDS[kind],) for kind in "111100100?01"))
BF16_DB = 30.0
"""What the rounding of another kernel comes to; unrelated latents are at about 20 dB."""


def held(
    quantization: Quantization = NOTHING,
    *,
    compiled: bool = False,
    offload: Offload = RESIDENT,
    dtype: DtypeChoice = DtypeChoice.BFLOAT16,
    device: DeviceChoice = DeviceChoice.CUDA,
) -> LoadedPipeline:
    return load(
        str(MODEL),
        device=device,
        dtype=dtype,
        quantization=quantization,
        compiled=compiled,
        offload=offload,
    )


def drawn(loaded: LoadedPipeline, program: Program = UNCACHED) -> Tensor:
    return engine.run(loaded.pipeline, program, SPEC).latents


@cache
def resident() -> LoadedPipeline:
    return held()


@cache
def of_the_cpu(dtype: DtypeChoice, program: Program) -> Tensor:
    """Of that dtype, too: the noise of a seed is drawn in it, as another one's."""
    return drawn(held(device=DeviceChoice.CPU, dtype=dtype), program)


def decibels(found: Tensor, wanted: Tensor) -> float:
    """The signal-to-noise ratio, of the largest value to the root mean square of the difference."""
    error = float((found.double() - wanted.double()).square().mean())
    return 99.0 if not error else 10 * math.log10(float(wanted.abs().max()) ** 2 / error)


@pytest.mark.parametrize("program", [UNCACHED, CACHED], ids=["uncached", "cached"])
@pytest.mark.parametrize(
    ("dtype", "least"),
    [(DtypeChoice.FLOAT32, 70.0), (DtypeChoice.BFLOAT16, BF16_DB), (DtypeChoice.FLOAT16, BF16_DB)],
)
def test_the_picture_is_that_of_the_cpu(dtype: DtypeChoice, least: float, program: Program) -> None:
    loaded = held(dtype=dtype)
    assert loaded.device == torch.device("cuda", 0)
    first = drawn(loaded, program)
    found = decibels(first, of_the_cpu(dtype, program))
    print(f"{dtype}: {found:.1f} dB")
    assert found > least
    assert torch.equal(drawn(loaded, program), first)


def test_steps_are_timed_by_the_device_in_order() -> None:
    told: list[int] = []
    result = engine.run(
        resident().pipeline, CACHED, SPEC, on_step=lambda outcome: told.append(outcome.step)
    )
    assert told == [step.step for step in result.steps] == list(range(STEPS))
    assert all(step.milliseconds > 0 for step in result.steps)
    assert sum(step.milliseconds for step in result.steps) <= result.denoise_seconds * 1e3 * 1.05
    assert result.cache_bytes[0] > 0


def test_a_cancelled_run_stops_within_two_steps() -> None:
    wanted = drawn(resident())
    asked: list[int] = []

    def is_cancelled(step: int) -> bool:
        asked.append(step)
        return step >= 3

    with pytest.raises(engine.RunCancelled):
        engine.run(resident().pipeline, UNCACHED, SPEC, is_cancelled=is_cancelled)
    assert max(asked) <= 4
    assert torch.equal(drawn(resident()), wanted)


def test_a_run_leaves_no_memory_behind() -> None:
    drawn(resident(), CACHED)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        drawn(resident(), CACHED)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_quantized_layers_draw_nearly_the_same(kind: str) -> None:
    quantization = Quantization(kind, ("embed", "embedder"))
    capability = int("{}{}".format(*torch.cuda.get_device_capability()))
    if capability < LEAST_CAPABILITY.get(kind, 0):
        with pytest.raises(PlacementError, match=f"{kind} needs a CUDA device of at least sm"):
            held(quantization)
        return
    loaded = held(quantization)
    assert loaded.unquantized == ()
    sizes = [
        sum(stored_bytes(p) for p in each.pipeline.transformer.parameters())
        for each in (loaded, resident())
    ]
    for program in (UNCACHED, CACHED):
        found = decibels(drawn(loaded, program), drawn(resident(), program))
        print(f"{kind}: {sizes[0] / sizes[1]:.2f} of the bytes, {found:.1f} dB")
        assert found > (20.0 if "4" in kind else 25.0)
    # Of int4 every row is padded to 1024 inputs, of which this model has 128 to 640.
    assert kind.startswith("int4") or sizes[0] < 0.75 * sizes[1]


@pytest.mark.parametrize("kind", ["", "float8_per_row"])
def test_compiled_blocks_draw_nearly_the_same(kind: str) -> None:
    quantization = Quantization(kind, ("embed", "embedder")) if kind else NOTHING
    loaded, eager = held(quantization, compiled=True), held(quantization)
    for program in (UNCACHED, CACHED):
        found = decibels(drawn(loaded, program), drawn(eager, program))
        print(f"{kind or 'bfloat16'}, compiled: {found:.1f} dB")
        assert found > BF16_DB


_EVERYTHING = Offload(dit=True, text_encoder=True, vae=True)


@pytest.mark.parametrize(
    "offload",
    [
        Offload(dit=True),
        Offload(text_encoder=True, vae=True),
        _EVERYTHING,
        Offload(dit_layerwise=True),
        replace(_EVERYTHING, dit=False, dit_layerwise=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("program", [UNCACHED, CACHED], ids=["uncached", "cached"])
def test_what_waits_in_the_host_changes_nothing(offload: Offload, program: Program) -> None:
    wanted = drawn(resident(), program)
    before = torch.cuda.memory_allocated()
    loaded = held(offload=offload)
    after_load = torch.cuda.memory_allocated() - before
    held_by = {
        name: sum(stored_bytes(p) for p in module.parameters())
        for name, module in loaded.pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    resident_bytes = sum(size for name, size in held_by.items() if name not in loaded.offloaded)
    if offload.dit_layerwise:
        resident_bytes -= held_by["transformer"] // 2
    print(f"{after_load} bytes on the device after loading, all: {sum(held_by.values())}")
    assert after_load < resident_bytes + 2**20
    for _ in range(2):
        assert torch.equal(drawn(loaded, program), wanted)


def test_every_backend_that_is_offered_attends() -> None:
    loaded = resident()
    wanted = drawn(loaded)
    print(loaded.attention_backends)
    for name, fault in loaded.attention_faults.items():
        print(f"  not {name}: {fault}")
    assert {"native", "_native_flash", "_native_math"} <= {*loaded.attention_backends}
    for name in loaded.attention_backends:
        found = decibels(drawn(loaded, replace(UNCACHED, attention_backend=name)), wanted)
        print(f"{name}: {found:.1f} dB")
        assert found > BF16_DB
