"""Jobs for ranks: timed forwards of a FLUX transformer that has something to compute."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from torch import nn

from executor.engine.execution import Execution
from executor.engine.program import Branch, Column, Op, OpKind, Program, Topology
from executor.engine.sharing import Exchanges
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from executor.parallel.tensor import reconnect, split_tensors
from executor.parallel.tensor_layers import RowLinear

HEADS, CHANNELS = 8, 64
DOUBLE, SINGLE = 2, 4
SIDE, TEXT = 32, 128
LISTS = ("transformer_blocks", "single_transformer_blocks")


def timed(world: World, topology: Topology, forwards: int) -> tuple[list[float], Exchanges]:
    """Seconds of each forward, and what one of them exchanged."""
    sharing = Sharing(world, topology)
    model = _model(topology.tp_size)
    share_weights(model, world, topology)
    op = (Op(OpKind.FULL),)
    program = Program((Column("transformer", Branch.COND, LISTS),), (op,) * forwards, topology)
    execution = Execution({"transformer": model}, program, sharing=sharing)
    seconds = []
    with torch.no_grad(), execution.attached():
        for _ in range(forwards):
            start = time.perf_counter()
            model(**_inputs())
            seconds.append(time.perf_counter() - start)
            execution.end_step()
    return seconds, {
        key: (calls // forwards, nbytes // forwards)
        for key, (calls, nbytes) in sharing.exchanges.items()
    }


def share_weights(model: nn.Module, world: World, topology: Topology) -> None:
    """Leaves a model with this rank's part of its weights, if it is not that already."""
    if topology.tp_size > 1:
        group = world.mesh(topology).tp
        if not any(isinstance(module, RowLinear) for module in model.modules()):
            split_tensors(model, group)
        reconnect(model, group)


@cache
def _model(tp_size: int) -> nn.Module:
    """One for every number of ranks that its weights may be split over."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    model: nn.Module = FluxTransformer2DModel(
        in_channels=16,
        num_layers=DOUBLE,
        num_single_layers=SINGLE,
        attention_head_dim=CHANNELS,
        num_attention_heads=HEADS,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        axes_dims_rope=(16, 24, 24),
    ).eval()
    return model


@cache
def _inputs() -> dict[str, Any]:
    torch.manual_seed(1)
    positions = torch.zeros(SIDE, SIDE, 3)
    positions[..., 1] = torch.arange(SIDE)[:, None]
    positions[..., 2] = torch.arange(SIDE)[None, :]
    return {
        "hidden_states": torch.randn(1, SIDE * SIDE, 16),
        "encoder_hidden_states": torch.randn(1, TEXT, 64),
        "pooled_projections": torch.randn(1, 64),
        "timestep": torch.tensor([0.5]),
        "img_ids": positions.reshape(-1, 3),
        "txt_ids": torch.zeros(TEXT, 3),
    }
