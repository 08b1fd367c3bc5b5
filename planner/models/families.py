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


_MOST_BLOCKS = 4096
_MOST_CHANNELS = 65536
_MOST_VAE_LEVELS = 8


def flux(configs: Configs) -> ModelFacts:
    """FLUX.1: double blocks, then single blocks, cached as one group; guidance is embedded.

    Raises:
        KeyError: the transformer's config is missing.
        ValueError: a value is none that a checkpoint can have.
    """
    transformer = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    # The pipeline packs 2 x 2 latents into one token.
    multiple = 2 * 2 ** (_length(vae, "block_out_channels", 4, most=_MOST_VAE_LEVELS) - 1)
    size = _count(vae, "sample_size", 1024, most=_MOST_CHANNELS)
    size = max(size // multiple, 1) * multiple
    lists = (
        BlockList("transformer_blocks", _count(transformer, "num_layers", 19, least=0)),
        BlockList(
            "single_transformer_blocks", _count(transformer, "num_single_layers", 38, least=0)
        ),
    )
    target = Target(
        name="transformer",
        transformer_class="FluxTransformer2DModel",
        block_lists=lists,
        num_attention_heads=_count(transformer, "num_attention_heads", 24),
        attention_head_dim=_count(transformer, "attention_head_dim", 128, most=_MOST_CHANNELS),
    )
    return ModelFacts(
        architecture=Architecture("flux", "FluxPipeline", (target,)),
        groups=(BlockGroup(target.name, tuple(blocks.name for blocks in lists)),),
        defaults=ModelDefaults(
            num_inference_steps=28, height=size, width=size, size_multiple=multiple
        ),
        guidance_embeds=transformer.get("guidance_embeds", False) is True,
    )


FAMILIES: Mapping[str, Callable[[Configs], ModelFacts]] = {"FluxPipeline": flux}
"""Facts by ``_class_name`` of a checkpoint's ``model_index.json``."""


def _count(
    config: Mapping[str, Any], key: str, default: int, *, least: int = 1, most: int = _MOST_BLOCKS
) -> int:
    value = config.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} is {_shown(value)}, not a number from {least} to {most}")
    return value


def _length(config: Mapping[str, Any], key: str, default: int, *, most: int) -> int:
    if key not in config:
        return default
    value = config[key]
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise ValueError(f"{key} is {_shown(value)}, not a list of 1 to {most} entries")
    return len(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
