"""What is counted of a transformer is what torch counts: every layer, parameter and operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import diffusers
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from planner.models.catalog import NAMED
from planner.models.facts import Target
from planner.models.layers import Linear, Rows, Shape, TokenCounts, shares
from planner.models.resolve import from_name
from tests.planner.models.tiny import TINY, Tiny


def layers(target: Target, shape: Shape) -> Iterator[tuple[str, Linear]]:
    for blocks, block in zip(target.block_lists, shape.blocks, strict=True):
        for i in range(blocks.num_blocks):
            for linear in block.linears:
                yield f"{blocks.name}.{i}.{linear.name}", linear
    for linear in shape.rest.linears:
        yield linear.name, linear


def parameters(target: Target, shape: Shape) -> int:
    lists = zip(target.block_lists, shape.blocks, strict=True)
    return shape.rest.parameters + sum(b.num_blocks * block.parameters for b, block in lists)


def check(model: nn.Module, target: Target, shape: Shape) -> None:
    mine = {
        name: (linear.inputs, linear.outputs, linear.bias)
        for name, linear in layers(target, shape)
        if not linear.convolution
    }
    real = {
        name: (module.in_features, module.out_features, module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert mine == real
    assert parameters(target, shape) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
def test_tiny_models_have_these_layers(tiny: Tiny) -> None:
    (target,), (shape,) = tiny.facts.architecture.targets, tiny.facts.shapes
    check(tiny.build(), target, shape)


@pytest.mark.parametrize("name", NAMED)
def test_published_models_have_these_layers(name: str) -> None:
    facts = from_name(name)
    for target in facts.architecture.targets:
        config = NAMED[name][f"{target.name}/config.json"]
        shape = facts.shape(target.name)
        assert shape is not None
        assert target.transformer_class == config["_class_name"]
        check(_on_meta(config), target, shape)


def _on_meta(config: Mapping[str, Any]) -> nn.Module:
    values = {key: value for key, value in config.items() if key != "_class_name"}
    with torch.device("meta"):
        model: nn.Module = getattr(diffusers, config["_class_name"])(**values)
    return model


@pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
def test_operations_are_those_that_torch_counts(tiny: Tiny) -> None:
    (target,), (shape,) = tiny.facts.architecture.targets, tiny.facts.shapes
    model = tiny.build()
    # torch counts no operations of its fused attention for CPUs, but those of its matrix products.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        tiny.forward(model)
    by_module = {
        module.removeprefix(f"{type(model).__name__}."): sum(operations.values())
        for module, operations in counter.get_flop_counts().items()
    }
    blocks = 0
    for listed, block in zip(target.block_lists, shape.blocks, strict=True):
        flops = block.flops(tiny.tokens)
        for i in range(listed.num_blocks):
            assert by_module[f"{listed.name}.{i}"] == flops
            blocks += flops
    assert counter.get_total_flops() == blocks + shape.rest.flops(tiny.tokens)


def test_tokens_are_shared_evenly_and_the_first_ranks_get_one_more() -> None:
    tokens = TokenCounts(image=10, text=5, prompt=4)
    assert shares(tokens.image, 3) == [4, 3, 3]
    assert shares(2, 3) == [1, 1, 0]
    assert tokens.of(Rows.JOINT) == 15
    assert (tokens.of(Rows.VECTOR), tokens.of(Rows.UNUSED)) == (1, 0)
