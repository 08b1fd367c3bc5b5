"""Bytes of a transformer's weights on one rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from planner.compile.plan import ComponentQuantization, Placement
from planner.models.facts import Target
from planner.models.layers import Layers, Linear, Shape, Split

# As torchao 0.18 stores them; scales are of four bytes, and int8 has a zero point of one.
_SCALE = 4
_INT8_SCALE = _SCALE + 1
_BLOCK = 128
_NVFP4_GROUP = 16
_MULTIPLES = {
    "float8_per_row": 16,
    "float8_per_tensor": 16,
    "float8_per_block": _BLOCK,
    "nvfp4": 16,
    "nvfp4_weight_only": 16,
}
# Groups of inputs with a scale and a zero point of two bytes each, in tiles.
_INT4_GROUP, _INT4_INPUTS, _INT4_OUTPUTS = 128, 1024, 8


@dataclass(frozen=True, slots=True)
class QuantizedLayers:
    """Layers of the blocks of one list that are treated alike, with their share on one rank.

    ``name`` has * for the number of the block; without a ``quant_type`` they are left as they are,
    for the reason given.
    """

    component: str
    name: str
    count: int
    quant_type: str
    reason: str
    inputs: int
    outputs: int


def quantized_layers(
    target: Target, shape: Shape, placement: Placement, *, tp_size: int
) -> Iterator[QuantizedLayers]:
    """What becomes of every matrix of the block lists; nothing for a target that is not quantized.

    Other layers are never quantized.
    """
    own = placement.of(target.name)
    if own is None:
        return
    parts = (*own.exclude_layers, *(rule.part for rule in placement.precision))
    by_block = any(character.isdigit() for part in parts for character in part)
    for listed, block in zip(target.block_lists, shape.blocks, strict=True):
        for linear in block.linears:
            if linear.convolution:
                continue
            inputs = ceil(linear.inputs / (tp_size if linear.split is Split.ROWS else 1))
            outputs = ceil(linear.outputs / (tp_size if linear.split is Split.COLUMNS else 1))
            found: Counter[tuple[str, str]] = Counter()
            for i in range(listed.num_blocks) if by_block else range(1):
                name = f"{listed.name}.{i}.{linear.name}"
                found[_decision(placement, own, name, inputs, outputs)] += 1
            name = f"{listed.name}.*.{linear.name}"
            for (kind, reason), count in found.items():
                times = count if by_block else listed.num_blocks
                yield QuantizedLayers(target.name, name, times, kind, reason, inputs, outputs)


def _decision(
    placement: Placement, own: ComponentQuantization, name: str, inputs: int, outputs: int
) -> tuple[str, str]:
    """The type of a layer, or "" and why it is left."""
    excluded = next((part for part in own.exclude_layers if part in name), None)
    if excluded is not None:
        return "", f"excluded by {excluded}"
    kind = placement.quant_type_of(own, name)
    multiple = _MULTIPLES.get(kind, 1)
    if inputs % multiple or outputs % multiple:
        return "", f"{outputs} x {inputs} are no multiples of {multiple}"
    if kind.startswith("int4") and inputs % _INT4_GROUP:
        return "", f"{inputs} inputs are no multiple of {_INT4_GROUP}"
    return kind, ""


def parameter_bytes(
    target: Target, shape: Shape, placement: Placement, *, tp_size: int, dtype_bytes: int
) -> int:
    """Of the weights of a transformer on one rank, the largest share."""
    total = _layers_bytes(shape.rest, tp_size, dtype_bytes)
    for listed, block in zip(target.block_lists, shape.blocks, strict=True):
        total += listed.num_blocks * _layers_bytes(block, tp_size, dtype_bytes)
    for each in quantized_layers(target, shape, placement, tp_size=tp_size):
        if each.quant_type:
            stored = _bytes(each.quant_type, each.inputs, each.outputs)
            total -= each.count * (each.inputs * each.outputs * dtype_bytes - stored)
    return total


def _layers_bytes(layers: Layers, tp_size: int, dtype_bytes: int) -> int:
    parameters = layers.vectors - layers.split_vectors + ceil(layers.split_vectors / tp_size)
    for linear in layers.linears:
        parameters += _share(linear, tp_size)
        if linear.bias:
            columns = tp_size if linear.split is Split.COLUMNS else 1
            parameters += ceil(linear.outputs / columns)
    return parameters * dtype_bytes


def _share(linear: Linear, tp_size: int) -> int:
    """Weights of a layer on one rank."""
    if linear.split is Split.NONE:
        return linear.weights
    return ceil(linear.weights / tp_size)


def _bytes(quant_type: str, inputs: int, outputs: int) -> int:
    """A quantized matrix with its scales."""
    weights = inputs * outputs
    if quant_type.startswith("nvfp4"):
        return weights // 2 + weights // _NVFP4_GROUP + _SCALE
    if quant_type.startswith("int4"):
        inputs = ceil(inputs / _INT4_INPUTS) * _INT4_INPUTS
        outputs = ceil(outputs / _INT4_OUTPUTS) * _INT4_OUTPUTS
        return inputs * outputs // 2 + 4 * outputs * (inputs // _INT4_GROUP)
    if quant_type == "float8_per_block":
        return weights + _SCALE * (weights // _BLOCK**2)
    scale = _INT8_SCALE if quant_type.startswith("int8") else _SCALE
    return weights + scale * (1 if quant_type.endswith("_per_tensor") else outputs)
