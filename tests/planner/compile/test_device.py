"""What a known device does not have is said before anything is loaded."""

from __future__ import annotations

import pytest

from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.facts import ModelFacts


@pytest.mark.parametrize(
    ("config", "device", "field"),
    [
        ("quantize_config: {quant_type: float8}", "sm89", None),
        ("quantize_config: {quant_type: float8}", "sm80", "quantize_config.quant_type"),
        ("quantize_config: {quant_type: float8_blockwise}", "cpu", "quantize_config.quant_type"),
        ("quantize_config: {quant_type: int8_weight_only}", "cpu", None),
        ("quantize_config: {quant_type: float8_weight_only}", "cpu", None),
        ("quantize_config: {quant_type: int4_weight_only}", "cpu", "quantize_config.quant_type"),
        (
            "quantize_config: {quant_type: int8, precision_plan: {attn: float8_per_row}}",
            "sm80",
            "quantize_config.precision_plan.attn",
        ),
        ("quantize_config: {quant_type: nvfp4}", "sm100", None),
        ("quantize_config: {quant_type: nvfp4}", "sm90", "quantize_config.quant_type"),
        (
            "quantize_config: {quant_type: int8, components_to_quantize: "
            "{transformer: {quant_type: float8}, vae: ~}}",
            "sm80",
            "quantize_config.components_to_quantize.transformer.quant_type",
        ),
        ("attention_backend: _flash_3", "sm90", None),
        ("attention_backend: _flash_3", "sm89", "attention_backend"),
        ("attention_backend: flash", "cpu", "attention_backend"),
        ("attention_backend: sage", "cpu", "attention_backend"),
        ("attention_backend: sage", "sm80", None),
        ("attention_backend: sage", "sm75", "attention_backend"),
        ("attention_backend: _native_cudnn", "sm75", "attention_backend"),
        ("attention_backend: _native_cudnn", "cpu", "attention_backend"),
        ("attention_backend: _native_flash", "sm75", "attention_backend"),
        ("attention_backend: _native_flash", "cpu", None),
        ("attention_backend: _native_efficient", "sm75", None),
        ("attention_backend: _native_efficient", "cpu", "attention_backend"),
        ("attention_backend: sage_blackwell_hub", "sm90", "attention_backend"),
        ("attention_backend: aiter_fa2_hub", "sm90", "attention_backend"),
        ("attention_backend: aiter_fa2_hub", "cpu", "attention_backend"),
        ("attention_backend: flex", "cpu", None),
        ("attention_backend: native", "cpu", None),
        ("", "cpu", None),
        ("", "gpu", "device"),
        ("", "sm9", "device"),
    ],
)
def test_a_device_has_it_or_the_compiler_says_so(
    config: str, device: str, field: str | None, flux: ModelFacts
) -> None:
    compilation = compile_config(config, flux, Request(device=device))
    assert (compilation.program is None) == (field is not None)
    errors = [d for d in compilation.diagnostics if d.severity.value == "error"]
    assert [d.field for d in errors] == ([field] if field else [])
    assert all(device in d.message for d in errors)


def test_an_unknown_device_changes_nothing(flux: ModelFacts) -> None:
    config = "quantize_config: {quant_type: float8}"
    known = compile_config(config, flux, Request(device="sm90"))
    assert compile_config(config, flux, Request()).program == known.program is not None


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16", "float32"])
@pytest.mark.parametrize("quant_type", ["float8_per_row", "float8_per_tensor", "int8_per_row"])
def test_some_types_are_made_of_bfloat16(
    flux: ModelFacts, dtype: str | None, quant_type: str
) -> None:
    config = f"quantize_config: {{quant_type: {quant_type}}}"
    compilation = compile_config(config, flux, Request(4, dtype=dtype))
    if dtype in (None, "bfloat16") or quant_type != "float8_per_row":
        assert compilation.diagnostics == ()
        return
    [found] = compilation.diagnostics
    assert (found.code, found.field) == ("quantized-dtype", "quantize_config.quant_type")
    assert found.message.endswith(f"bfloat16 weights, not {dtype}")
