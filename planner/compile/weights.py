"""Bytes of a transformer's weights on one rank."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from planner.compile.plan import ComponentQuantization, Placement
from planner.models.facts import Target
from planner.models.layers import Layers, Linear, Shape, Split

_SCALE = 4
_GROUP = 128
_NVFP4_GROUP = 16


def parameter_bytes(
    target: Target, shape: Shape, placement: Placement, *, tp_size: int, dtype_bytes: int
) -> int:
    """Quantized are the matrices of the block lists, less those that are excluded by name."""
    total = _layers_bytes(shape.rest, tp_size, dtype_bytes)
    for listed, block in zip(target.block_lists, shape.blocks, strict=True):
        total += listed.num_blocks * _layers_bytes(block, tp_size, dtype_bytes)
        quantization = placement.of(target.name)
        if quantization is not None:
            for linear, times in _quantized(listed.name, listed.num_blocks, block, quantization):
                weights = _share(linear, tp_size)
                kind = placement.quant_type_of(quantization, f"{listed.name}.0.{linear.name}")
                inputs = linear.inputs
                if linear.split is Split.ROWS:
                    inputs = ceil(inputs / tp_size)
                total -= times * (weights * dtype_bytes - _bytes(inputs, weights, kind))
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


def _quantized(
    name: str, blocks: int, block: Layers, quantization: ComponentQuantization
) -> Iterator[tuple[Linear, int]]:
    """Layers and in how many blocks they are quantized."""
    excluded = quantization.exclude_layers
    by_block = any(character.isdigit() for part in excluded for character in part)
    for linear in block.linears:
        if linear.convolution:
            continue
        if not by_block:
            if not any(part in f"{name}.{linear.name}" for part in excluded):
                yield linear, blocks
            continue
        names = (f"{name}.{i}.{linear.name}" for i in range(blocks))
        yield linear, sum(not any(part in full for part in excluded) for full in names)


def _bytes(inputs: int, weights: int, quant_type: str) -> int:
    """A quantized matrix of so many inputs and weights, with its scales."""
    if quant_type.startswith("nvfp4"):
        return weights // 2 + ceil(weights / _NVFP4_GROUP)
    if quant_type.startswith("int4"):
        return weights // 2 + 4 * ceil(weights / _GROUP)
    if quant_type.endswith("_per_tensor"):
        return weights + _SCALE
    if quant_type.endswith("_per_block"):
        return weights + _SCALE * ceil(weights / _GROUP**2)
    return weights + _SCALE * ceil(weights / inputs)
