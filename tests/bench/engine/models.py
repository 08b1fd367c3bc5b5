"""The transformers that are measured, what they are called with, and smaller ones cut from them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from executor.placement.load import load
from tests.bench.inputs import DEMO
from tests.executor.tiny import flux

LISTS = ("transformer_blocks", "single_transformer_blocks")
_BLOCKS = {"num_layers": 4, "num_single_layers": 16}

Inputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """A FLUX transformer and how it is measured.

    ``turn``: forwards that a lane runs in a row, of which the fastest counts: small ones are over
    before the caches of the CPU know them. ``passes_on``: the blocks do almost nothing.
    """

    title: str
    transformer: Any
    batch: int
    image_tokens: int
    text_tokens: int
    rounds: int
    turn: int = 1
    passes_on: bool = False

    @property
    def forwards(self) -> int:
        """How often a lane is measured."""
        return self.rounds * self.turn

    def inputs(self) -> Iterator[Inputs]:
        """Forwards that differ a little, so that residual diffs lie between 0 and 1."""
        config = self.transformer.config
        generator = torch.Generator().manual_seed(0)

        like = next(self.transformer.parameters())

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(like)

        latents = normal(self.batch, self.image_tokens, config.in_channels)
        shared = {
            "encoder_hidden_states": normal(
                self.batch, self.text_tokens, config.joint_attention_dim
            ),
            "pooled_projections": normal(self.batch, config.pooled_projection_dim),
            "timestep": like.new_full((self.batch,), 0.5),
            "img_ids": like.new_zeros(self.image_tokens, 3),
            "txt_ids": like.new_zeros(self.text_tokens, 3),
            "guidance": like.new_full((self.batch,), 3.5) if config.guidance_embeds else None,
            "return_dict": False,
        }
        some = [latents + 0.02 * normal(*latents.shape) for _ in range(8)]
        return cycle({"hidden_states": each, **shared} for each in some)

    def copy(self) -> Any:
        """The same transformer again, with the same weights in memory, to be changed."""
        other = copy_of(self.transformer)
        return _pass_on(other) if self.passes_on else other


def copy_of(transformer: Any) -> Any:
    """Another transformer with the same weights in memory."""
    with torch.device("meta"):
        other = FluxTransformer2DModel.from_config(transformer.config).eval()
    other.load_state_dict(transformer.state_dict(), assign=True)
    return other


def cut(transformer: Any, first: int, last: int = 0) -> Any:
    """A view of a transformer with its first and last blocks alone."""
    blocks = [(name, block) for name in LISTS for block in getattr(transformer, name)]
    kept = blocks[:first] + blocks[len(blocks) - last :]
    view = copy.copy(transformer)
    lists = {name: nn.ModuleList(block for at, block in kept if at == name) for name in LISTS}
    view._modules = {**transformer._modules, **lists}
    return view


def _forward(
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    temb: Tensor,
    image_rotary_emb: Any = None,
    joint_attention_kwargs: Any = None,
) -> tuple[Tensor, Tensor]:
    return encoder_hidden_states, hidden_states * 1.01


def _pass_on(transformer: Any) -> Any:
    """Makes every block of a FLUX transformer one multiplication; its classes stay."""
    for name in LISTS:
        for block in getattr(transformer, name):
            block.forward = _forward
    return transformer


@torch.no_grad()
def noise(device: torch.device, dtype: torch.dtype, **config: Any) -> Any:
    """A FLUX transformer on a device, whose weights are noise; without more, of FLUX.1-dev's size.

    What a step takes does not depend on the weights; what it draws shows nothing.
    """
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True, **config).eval()
    transformer.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in transformer.parameters():
        # Of a variance that keeps that of what passes through.
        spread = 0.02 if parameter.dim() < 2 else parameter.shape[-1] ** -0.5
        parameter.normal_(std=spread, generator=generator)
    return transformer


def subjects(*, look: bool) -> Iterator[Subject]:
    """The demo model, 20 blocks of about a millisecond, 20 blocks that do almost nothing."""
    few, many = (4, 10) if look else (40, 80)
    demo = load(str(DEMO)).pipeline.transformer
    yield Subject("the demo model", demo, 1, 64, 16, rounds=few, turn=3)
    wide = flux.build(**_BLOCKS).transformer
    yield Subject("a tiny FLUX", wide, 4, 16, 8, rounds=few, turn=3)
    empty = _pass_on(flux.build(**_BLOCKS).transformer)
    yield Subject("near-empty blocks", empty, 1, 16, 8, rounds=many, turn=10, passes_on=True)
