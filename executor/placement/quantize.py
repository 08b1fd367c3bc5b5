"""Quantizes the layers of a loaded pipeline with torchao, in place."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from executor.placement.quantization import (
    FLOAT8_BLOCK,
    INT4_GROUP,
    Decision,
    Quantization,
    QuantizedLayers,
    decisions,
    grouped,
)


def quantize(
    pipeline: Any, quantization: Quantization, device: torch.device
) -> tuple[QuantizedLayers, ...]:
    """Leaves every layer that is to be quantized with its new weight, computed on the device.

    Layer by layer, so that a device need not hold the component as it was. No setting of torch's
    compiler or of its precision is touched.
    """
    found: list[QuantizedLayers] = []
    for name, component in pipeline.components.items():
        if not isinstance(component, nn.Module):
            continue
        decided: list[tuple[Decision, int]] = []
        for layer, decision in decisions(quantization, name, component):
            if decision.quant_type:
                _quantize(layer, decision.quant_type, device)
            decided.append((decision, stored_bytes(layer.weight)))
        found += grouped(name, decided)
    return tuple(found)


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, or of those that a quantized one consists of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(stored_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def _quantize(layer: nn.Linear, kind: str, device: torch.device) -> None:
    from torchao.quantization import quantize_

    layer.to(device)
    quantize_(layer, _config(kind), filter_fn=lambda module, name: True)
    if not kind.endswith("weight_only"):
        kept: Any = type(layer)
        layer.__class__ = _taking_none(kept)


class _TakingNone(nn.Linear):
    """A layer of no rows: torchao finds no scale for them. A short prompt may leave none."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.numel() == 0:
            return input.new_empty((*input.shape[:-1], self.out_features))
        return super().forward(input)


@cache
def _taking_none(kept: Any) -> Any:
    """One class for one: compiled blocks are told apart by the classes of their layers."""
    return type(kept.__name__, (_TakingNone, kept), {})


def _config(kind: str) -> Any:
    """Torchao's config of a type, none of which sets anything outside the layer."""
    import torchao.quantization as ao

    def float8(granularity: Any) -> Any:
        return ao.Float8DynamicActivationFloat8WeightConfig(
            granularity=granularity, set_inductor_config=False
        )

    match kind:
        case "float8_per_row":
            return float8(ao.PerRow())
        case "float8_per_tensor":
            return float8(ao.PerTensor())
        case "float8_per_block":
            return float8([ao.PerBlock([1, FLOAT8_BLOCK]), ao.PerBlock([FLOAT8_BLOCK] * 2)])
        case "float8_weight_only":
            return ao.Float8WeightOnlyConfig(set_inductor_config=False)
        case "int8_per_row":
            return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        case "int8_per_tensor":
            return ao.Int8DynamicActivationInt8WeightConfig(
                granularity=ao.PerTensor(), set_inductor_config=False
            )
        case "int8_weight_only":
            return ao.Int8WeightOnlyConfig(set_inductor_config=False)
        case "int4_weight_only":
            # Of the formats the one whose kernel torch itself has.
            return ao.Int4WeightOnlyConfig(
                group_size=INT4_GROUP,
                int4_packing_format="tile_packed_to_4d",
                set_inductor_config=False,
            )
    from torchao.prototype import mx_formats

    if kind == "nvfp4":
        return mx_formats.NVFP4DynamicActivationNVFP4WeightConfig()
    assert kind == "nvfp4_weight_only", kind
    return mx_formats.NVFP4WeightOnlyConfig()
