"""FLUX.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    ModelDefaults,
    ModelFacts,
    Target,
)
from planner.models.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from planner.models.layers import (
    Attention,
    Layers,
    Linear,
    Rows,
    Shape,
    Split,
    embedding,
    feed_forward,
    joined,
    projections,
)
from planner.models.lengths import SequenceRule
from planner.models.reading import MOST_CHANNELS, Configs, channels, count, flag, levels

_MOST_TOKENS = 512


def flux(configs: Configs) -> ModelFacts:
    """FLUX.1: double blocks, then single blocks, cached as one group; guidance is embedded.

    Raises:
        KeyError: the transformer's config is missing.
        ValueError: a value is none that a checkpoint can have.
    """
    transformer = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    # The pipeline packs 2 x 2 latents into one token.
    multiple = 2 * 2 ** (levels(vae, "block_out_channels", 4) - 1)
    size = count(vae, "sample_size", 1024, most=MOST_CHANNELS)
    size = max(size // multiple, 1) * multiple
    lists = (
        BlockList("transformer_blocks", count(transformer, "num_layers", 19, least=0)),
        BlockList(
            "single_transformer_blocks", count(transformer, "num_single_layers", 38, least=0)
        ),
    )
    target = Target(
        name="transformer",
        transformer_class="FluxTransformer2DModel",
        block_lists=lists,
        num_attention_heads=count(transformer, "num_attention_heads", 24),
        attention_head_dim=channels(transformer, "attention_head_dim", 128),
    )
    embedded = flag(transformer, "guidance_embeds", False)
    return ModelFacts(
        architecture=Architecture("flux", "FluxPipeline", (target,)),
        groups=(BlockGroup(target.name, tuple(blocks.name for blocks in lists)),),
        defaults=ModelDefaults(
            num_inference_steps=28, height=size, width=size, size_multiple=multiple
        ),
        guidance=Guidance(GuidanceKind.EMBEDDED, 3.5) if embedded else NO_GUIDANCE,
        sequence=SequenceRule(patch=multiple, prompt=_prompt(configs)),
        shapes=(_shape(target, transformer, guidance_embeds=embedded),),
    )


def _prompt(configs: Configs) -> int:
    """Prompts are padded to what the tokenizer takes, and to 512 tokens where it takes more."""
    limit = configs.get("tokenizer_2/tokenizer_config.json", {}).get("model_max_length")
    return limit if type(limit) is int and 1 <= limit <= _MOST_TOKENS else _MOST_TOKENS


def _shape(target: Target, config: Mapping[str, Any], *, guidance_embeds: bool) -> Shape:
    width, head = target.hidden_size, target.attention_head_dim
    patch = count(config, "patch_size", 1)
    latents = channels(config, "in_channels", 64)
    out = latents if config.get("out_channels") is None else channels(config, "out_channels", 64)
    return Shape(
        target.name,
        blocks=(double_block(width, head, 4 * width), single_block(width, head, 4 * width)),
        rest=Layers(
            joined(
                embedding("time_text_embed.timestep_embedder", 256, width),
                embedding("time_text_embed.guidance_embedder", 256, width)
                if guidance_embeds
                else (),
                embedding(
                    "time_text_embed.text_embedder",
                    channels(config, "pooled_projection_dim", 768),
                    width,
                ),
                Linear(
                    "context_embedder",
                    Rows.TEXT,
                    channels(config, "joint_attention_dim", 4096),
                    width,
                ),
                Linear("x_embedder", Rows.IMAGE, latents, width),
                Linear("norm_out.linear", Rows.VECTOR, width, 2 * width),
                Linear("proj_out", Rows.IMAGE, width, patch * patch * out),
            )
        ),
    )


def double_block(width: int, head: int, inner: int) -> Layers:
    """Image and text side by side under one attention (HunyuanVideo has the same)."""
    return Layers(
        joined(
            Linear("norm1.linear", Rows.VECTOR, width, 6 * width),
            Linear("norm1_context.linear", Rows.VECTOR, width, 6 * width),
            projections("attn", ("to_q", "to_k", "to_v"), Rows.IMAGE, width, width),
            projections(
                "attn", ("add_q_proj", "add_k_proj", "add_v_proj"), Rows.TEXT, width, width
            ),
            Linear("attn.to_out.0", Rows.IMAGE, width, width, split=Split.ROWS),
            Linear("attn.to_add_out", Rows.TEXT, width, width, split=Split.ROWS),
            feed_forward("ff.net.0.proj", "ff.net.2", Rows.IMAGE, width, inner),
            feed_forward("ff_context.net.0.proj", "ff_context.net.2", Rows.TEXT, width, inner),
        ),
        (Attention(Rows.JOINT, Rows.JOINT, width),),
        vectors=4 * head,
    )


def single_block(width: int, head: int, inner: int) -> Layers:
    """One sequence, attention and feed-forward in parallel (HunyuanVideo has the same)."""
    return Layers(
        joined(
            Linear("norm.linear", Rows.VECTOR, width, 3 * width),
            projections("attn", ("to_q", "to_k", "to_v"), Rows.JOINT, width, width),
            Linear("proj_mlp", Rows.JOINT, width, inner, split=Split.COLUMNS),
            Linear("proj_out", Rows.JOINT, width + inner, width, split=Split.ROWS),
        ),
        (Attention(Rows.JOINT, Rows.JOINT, width),),
        vectors=2 * head,
    )
