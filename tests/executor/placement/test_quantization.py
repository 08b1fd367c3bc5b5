"""What becomes of the layers that a placement quantizes, and of the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import nn

from executor.agent.settings import Settings
from executor.engine import run as engine
from executor.engine.program import Branch, Column, Op, OpKind, Program
from executor.errors import PlacementError
from executor.placement.device import DeviceChoice, DtypeChoice
from executor.placement.load import LoadedPipeline, load
from executor.placement.placement import Placement
from executor.placement.quantization import (
    ComponentQuantization,
    PrecisionRule,
    Quantization,
    device_faults,
)
from executor.placement.quantize import quantize, stored_bytes
from executor.runtime.seat import Seat
from tests.executor import tiny
from tests.executor.engine.whole_runs import CASES, built, program_of, run_of
from tests.executor.parallel.shared_runs import relative

CPU = torch.device("cpu")
# Relative to the latents of weights as they are, four steps of tiny random models later.
ERRORS = {
    "int8_weight_only": 0.02,
    "int8_per_row": 0.04,
    "int8_per_tensor": 0.06,
    "float8_weight_only": 0.1,
}
NAMES = [name for name in CASES if name != "flux-controlnet"]
# The last leaves some layers without a token: its prompt is shorter than Wan's are.
FEW = ("flux", "wan-2.2", "wan-2.1-picture")
OTHERS = [(kind, name) for kind in list(ERRORS)[1:] for name in FEW]


@pytest.mark.parametrize(
    ("kind", "name"), [*(("int8_weight_only", name) for name in NAMES), *OTHERS]
)
def test_every_family_draws_nearly_the_same(kind: str, name: str) -> None:
    case = CASES[name]
    guided = case.guided is not None
    program = program_of(name, guided, "1010", fn=1, bn=1)
    pipeline = case.prepare(tiny.build(case.pipeline_class, **case.options))
    layers = quantize(pipeline, Quantization(kind), CPU)
    assert {each.component for each in layers} == set(case.targets)
    plain = run_of(built(name), name, guided, program)
    run = run_of(pipeline, name, guided, program)
    assert 1e-5 < relative(run.latents, plain.latents) < ERRORS[kind]
    assert run.outcomes == plain.outcomes


def _kinds(module: nn.Module) -> dict[str, str]:
    return {
        name: type(layer.weight).__name__
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


def _load(checkpoint: Path, wanted: Quantization, **options: Any) -> LoadedPipeline:
    return load(str(checkpoint), device=DeviceChoice.CPU, quantization=wanted, **options)


def test_excluded_layers_and_all_outside_of_blocks_stay(checkpoint: Path) -> None:
    loaded = _load(checkpoint, Quantization("int8_weight_only", ("norm", "ff_context")))
    for name, kind in _kinds(loaded.pipeline.transformer).items():
        blocks = name.startswith(("transformer_blocks", "single_transformer_blocks"))
        stays = not blocks or "norm" in name or "ff_context" in name
        assert (kind == "Parameter") == stays, name
    assert set(_kinds(loaded.pipeline.text_encoder_2).values()) == {"Parameter"}
    left = {each.name: each.reason for each in loaded.layers if not each.quant_type}
    assert left["single_transformer_blocks.*.norm.linear"] == "excluded by norm"
    assert left["transformer_blocks.*.ff_context.net.2"] == "excluded by ff_context"
    one = next(each for each in loaded.layers if each.name == "transformer_blocks.*.attn.to_q")
    weights = [block.attn.to_q.weight for block in loaded.pipeline.transformer.transformer_blocks]
    assert one.count == len(weights)
    assert one.weight_bytes == sum(stored_bytes(weight) for weight in weights)


def test_the_longest_rule_decides(checkpoint: Path) -> None:
    rules = (
        PrecisionRule("attn", "float8_weight_only"),
        PrecisionRule("attn.to_q", "int8_per_row"),
    )
    loaded = _load(checkpoint, Quantization("int8_weight_only", (), (), rules))
    kinds = {each.name: each.quant_type for each in loaded.layers}
    assert kinds["transformer_blocks.*.attn.to_q"] == "int8_per_row"
    assert kinds["transformer_blocks.*.attn.to_k"] == "float8_weight_only"
    assert kinds["transformer_blocks.*.ff.net.2"] == "int8_weight_only"


def test_other_components_are_quantized_where_they_are_named(checkpoint: Path) -> None:
    components = (
        ComponentQuantization("text_encoder_2", "int8_weight_only", ("wo",)),
        ComponentQuantization("vae", "float8_weight_only"),
    )
    loaded = _load(checkpoint, Quantization(components=components))
    assert set(_kinds(loaded.pipeline.transformer).values()) == {"Parameter"}
    for name, kind in _kinds(loaded.pipeline.text_encoder_2).items():
        assert kind == ("Parameter" if "wo" in name else "Int8Tensor"), name
    assert {each.component for each in loaded.layers} <= {"text_encoder_2", "vae"}
    _picture(loaded)


def _picture(loaded: LoadedPipeline) -> torch.Tensor:
    lists = ("transformer_blocks", "single_transformer_blocks")
    program = Program((Column("transformer", Branch.COND, lists),), ((Op(OpKind.FULL),),) * 3)
    return engine.run(loaded.pipeline, program, engine.RunSpec("a red cat", 32, 32, 7, 3.5)).latents


def test_two_loads_are_bit_equal(checkpoint: Path) -> None:
    first, second = (_picture(_load(checkpoint, Quantization("int8_per_row"))) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "kind", ["float8_per_row", "float8_per_block", "int4_weight_only", "nvfp4"]
)
def test_what_the_device_cannot_do_is_said_before_anything_is_loaded(kind: str) -> None:
    with pytest.raises(
        PlacementError, match=rf"{kind} needs a CUDA device of at least sm\d+; .*CPU"
    ):
        _load(Path("/no/such/model"), Quantization(kind), dtype=DtypeChoice.BFLOAT16)


def test_a_component_that_is_not_there_is_named(checkpoint: Path) -> None:
    components = (ComponentQuantization("text_encoder_3", "int8_weight_only"),)
    with pytest.raises(PlacementError, match="no text_encoder_3 to quantize"):
        _load(checkpoint, Quantization(components=components))


@pytest.mark.parametrize(
    ("kind", "capability", "dtype", "fault"),
    [
        ("float8_per_row", "sm89", torch.bfloat16, ""),
        ("float8_per_row", "sm90", torch.float16, "bfloat16 weights, not float16; use --dtype"),
        ("float8_per_row", "sm86", torch.bfloat16, "at least sm89; this one is sm86"),
        ("float8_per_tensor", "sm90", torch.float32, ""),
        ("nvfp4", "sm90", torch.bfloat16, "at least sm100"),
        ("nvfp4", "sm120", torch.bfloat16, ""),
        ("int8_per_row", "", torch.float32, ""),
        ("float4", "sm90", torch.bfloat16, "float4 is unknown here"),
    ],
)
def test_devices_and_dtypes(kind: str, capability: str, dtype: torch.dtype, fault: str) -> None:
    found = device_faults(Quantization(kind), capability, dtype)
    assert (found == []) == (not fault)
    assert fault in "; ".join(found)


def test_every_type_that_a_layer_may_have_counts() -> None:
    own = (ComponentQuantization("vae", "int8_per_row"),)
    rules = (PrecisionRule("attn", "float8_per_row"),)
    assert len(device_faults(Quantization(components=own, precision=rules), "", torch.float32)) == 1
    # Nothing is quantized: no rule says anything.
    assert device_faults(Quantization(precision=rules), "", torch.float32) == []


def test_float8_computes_where_the_hardware_is_not_asked(
    checkpoint: Path, loaded: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path that a GPU takes: a CPU's matrix product of float8 is there, torchao forbids it."""
    import torchao.quantization.quant_api as api

    monkeypatch.setattr(api, "_check_hardware_support", lambda granularities: None)
    pipeline = load(str(checkpoint), device=DeviceChoice.CPU).pipeline
    layers = quantize(pipeline, Quantization("float8_per_tensor"), CPU)
    assert {each.quant_type for each in layers} == {"float8_per_tensor"}
    lists = ("transformer_blocks", "single_transformer_blocks")
    program = Program((Column("transformer", Branch.COND, lists),), ((Op(OpKind.FULL),),) * 3)
    spec = engine.RunSpec("a red cat", 32, 32, 7, 3.5)
    found = engine.run(pipeline, program, spec).latents
    assert 1e-5 < relative(found, _picture(loaded)) < 0.1


def test_a_component_in_which_nothing_is_quantized_is_warned_of(checkpoint: Path) -> None:
    """The tiny VAE has convolutions only; of the encoder every layer is excluded."""
    settings = Settings(
        planner="",
        model=str(checkpoint),
        name="one",
        served_name=None,
        device="cpu",
        dtype="float32",
        seat=Seat(),
        tp_size=1,
        extra_parallel_modules=(),
        rank_timeout=1,
    )
    components = (
        ComponentQuantization("text_encoder_2", "int8_weight_only", (".",)),
        ComponentQuantization("transformer", "int8_weight_only"),
        ComponentQuantization("vae", "int8_weight_only"),
    )
    with capture_logs() as logged:
        settings.load(Placement(quantization=Quantization(components=components)), settings.log())
    warned = [entry for entry in logged if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["component"]) for entry in warned] == [
        ("nothing_quantized", "text_encoder_2"),
        ("nothing_quantized", "vae"),
    ]
