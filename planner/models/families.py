"""Model families: how the configs of a checkpoint become facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    ModelDefaults,
    ModelFacts,
    Target,
)

Configs = Mapping[str, Mapping[str, Any]]
"""The JSON configs of a checkpoint by path, e.g. ``transformer/config.json``."""


def flux(configs: Configs) -> ModelFacts:
    """FLUX.1: double blocks, then single blocks, cached as one group; guidance is embedded."""
    transformer = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    vae_scale = 2 ** (len(vae.get("block_out_channels", (0, 0, 0, 0))) - 1)
    guidance_embeds = bool(transformer.get("guidance_embeds", False))
    size = int(vae.get("sample_size", 1024))
    lists = (
        BlockList("transformer_blocks", int(transformer.get("num_layers", 19))),
        BlockList("single_transformer_blocks", int(transformer.get("num_single_layers", 38))),
    )
    target = Target(
        name="transformer",
        transformer_class="FluxTransformer2DModel",
        block_lists=lists,
        num_attention_heads=int(transformer.get("num_attention_heads", 24)),
        attention_head_dim=int(transformer.get("attention_head_dim", 128)),
    )
    return ModelFacts(
        architecture=Architecture("flux", "FluxPipeline", (target,)),
        groups=(BlockGroup(target.name, tuple(blocks.name for blocks in lists)),),
        # The pipeline packs 2 x 2 latents into one token.
        defaults=ModelDefaults(
            num_inference_steps=28, height=size, width=size, size_multiple=2 * vae_scale
        ),
        guidance_embeds=guidance_embeds,
    )


FAMILIES: Mapping[str, Callable[[Configs], ModelFacts]] = {"FluxPipeline": flux}
"""Facts by ``_class_name`` of a checkpoint's ``model_index.json``."""
