"""The schema that editors get, against the example files and against what the loader says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from planner.config.json_schema import json_schema
from planner.config.load import load
from planner.diagnostics import has_errors

EXAMPLES = sorted(
    path for room in ("demo", "examples") for path in Path("deploy", room).rglob("*.yaml")
)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid(validator: Draft202012Validator, path: Path) -> None:
    validator.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "cache_config: {Fn_compute_blocks: 1, max_cached_steps: null}",
        "cache_config: {steps_computation_mask: [1, 0, 1]}",
        "cache_config: {steps_computation_mask: {compute_bins: [2, 1], cache_bins: [1]}}",
        "cache_config: {enable_sperate_cfg: true}",
        "max_warmup_steps: 4",
        "{}",
        "parallelism_config: {ulysses: auto, tp_size: 2}",
        "cache_config: {secondary: {Fn_compute_blocks: 2}}",
        "quantize_config: {quant_type: float8}",
        "quantize_config: {components_to_quantize: [transformer, vae]}",
        "quantize_config: {components_to_quantize: {text_encoder: {quant_type: int8}, vae: null}}",
        "quantize_config: {precision_plan: {attn: float8, ff.net: int8_weight_only}}",
        "attention_backend: flash",
        "attention_backend: _sdpa_cudnn",
        "parallelism_config: {tp_size: 2, attention_backend: _sdpa_cudnn}",
        "parallelism_config: {parallel_kwargs: {attention_backend: _sdpa_cudnn}}",
        "quantize_config: {per_tensor_fallback: true, quant_type: nvfp4}",
        "parallelism_config: {parallel_kwargs: {experimental_ulysses_async: true, tp: 2}}",
        # any case, where the loader takes any
        "parallelism_config: {ulysses: AUTO, backend: Native_PyTorch}",
        "quantize_config: {quant_type: FLOAT8}",
        "quantize_config: {components_to_quantize: {vae: {quant_type: INT8}}}",
        "quantize_config: {precision_plan: {attn: Float8_Per_Row}}",
        # and what both refuse
        "quantize_config: {per_tensor_fallback: false}",
        "parallelism_config: {parallel_kwargs: {foo: 1}}",
        "cache_config: {Fn_compute_blocks: 0}",
        "cache_config: {Fn_compute_block: 1}",
        "cache_config: {residual_diff_threshold: '0.1'}",
        "cache_config: {steps_computation_mask: turbo}",
        "cache_config: {steps_computation_mask: [1, 2]}",
        "cache_config: {steps_computation_policy: Static}",
        "parallelism_config: {ulysses_size: AUTOMATIC}",
        "quantize_config: {quant_type: XFLOAT8}",
        "cache_config: []",
        "parallelism_config: {ulysses_size: 0}",
        "cache_config: {secondary: {Fn_compute_block: 2}}",
        "quantize_config: {quant_type: svdq_int4_r32}",
        "quantize_config: {exclude_layers: ['']}",
        'quantize_config: {exclude_layers: ["a\\tb"]}',
        f"quantize_config: {{exclude_layers: [{'a' * 129}]}}",
        f"quantize_config: {{exclude_layers: [{'a, ' * 1025}]}}",
        f"quantize_config: {{precision_plan: {{{'a' * 129}: float8_per_row}}}}",
        "quantize_config: {components_to_quantize: []}",
        "quantize_config: {components_to_quantize: [unet]}",
        "quantize_config: {components_to_quantize: {unet: null}}",
        "quantize_config: {components_to_quantize: {vae: {verbose: true}}}",
        "quantize_config: {precision_plan: {attn: float7}}",
        "quantize_config: {precision_plan: {'': float8}}",
        "attention_backend: 3",
        "attention_backend: sage3",
        "foo: 1",
        "[1]",
    ],
)
def test_schema_and_loader_agree(validator: Draft202012Validator, text: str) -> None:
    assert validator.is_valid(yaml.safe_load(text)) == (not has_errors(load(text).diagnostics))


def test_every_key_is_described(validator: Draft202012Validator) -> None:
    sections: dict[str, Any] = json_schema()["anyOf"][0]["properties"]
    undescribed = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, schema in section.get("properties", {}).items()
        if "description" not in schema
    ]
    assert undescribed == []
