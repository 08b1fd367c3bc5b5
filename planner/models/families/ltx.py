"""LTX-Video."""

from __future__ import annotations

import math
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
from planner.models.guidance import Guidance, GuidanceKind, NegativePrompt
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
from planner.models.reading import Configs, channels, count, flag, halvings

_PROMPT = 128


def ltx(configs: Configs) -> ModelFacts:
    """Text to video; the blocks run on one stream and attend to the text.

    Guidance runs as one forward of twice the batch.
    """
    transformer = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    if (count(transformer, "patch_size", 1), count(transformer, "patch_size_t", 1)) != (1, 1):
        raise ValueError("patches of several latent pixels are not supported")
    halved = halvings(vae, "spatio_temporal_scaling", 3)
    spatial = count(vae, "patch_size", 4, most=64) * 2**halved
    temporal = count(vae, "patch_size_t", 1, most=64) * 2**halved
    target = Target(
        name="transformer",
        transformer_class="LTXVideoTransformer3DModel",
        block_lists=(BlockList("transformer_blocks", count(transformer, "num_layers", 28)),),
        num_attention_heads=count(transformer, "num_attention_heads", 32),
        attention_head_dim=channels(transformer, "attention_head_dim", 64),
    )
    return ModelFacts(
        architecture=Architecture("ltx", "LTXPipeline", (target,)),
        groups=(BlockGroup(target.name, ("transformer_blocks",), (Rows.IMAGE,)),),
        defaults=ModelDefaults(
            num_inference_steps=50,
            height=512,
            width=704,
            size_multiple=math.lcm(32, spatial),
            num_frames=161,
            frame_multiple=temporal,
        ),
        guidance=Guidance(GuidanceKind.BATCHED, 3.0, negative_prompt=NegativePrompt.OPTIONAL),
        sequence=SequenceRule(patch=spatial, frames=temporal, prompt=_PROMPT),
        shapes=(_shape(target, transformer),),
    )


def _shape(target: Target, config: Mapping[str, Any]) -> Shape:
    width, cross = target.hidden_size, channels(config, "cross_attention_dim", 2048)
    biased, biased_out = (flag(config, f"attention_{key}", True) for key in ("bias", "out_bias"))
    block = Layers(
        joined(
            projections("attn1", ("to_q", "to_k", "to_v"), Rows.IMAGE, width, width, bias=biased),
            Linear("attn1.to_out.0", Rows.IMAGE, width, width, biased_out, Split.ROWS),
            projections("attn2", ("to_q",), Rows.IMAGE, width, width, bias=biased),
            projections("attn2", ("to_k", "to_v"), Rows.PROMPT, cross, width, bias=biased),
            Linear("attn2.to_out.0", Rows.IMAGE, width, width, biased_out, Split.ROWS),
            feed_forward("ff.net.0.proj", "ff.net.2", Rows.IMAGE, width, 4 * width),
        ),
        (
            Attention(Rows.IMAGE, Rows.IMAGE, width, normed=(Rows.IMAGE, Rows.IMAGE)),
            Attention(
                Rows.IMAGE,
                Rows.PROMPT,
                width,
                exchanged=False,
                normed=(Rows.IMAGE, Rows.PROMPT),
            ),
        ),
        # Norms of queries and keys across heads of both attentions, the table, the block's norms.
        vectors=4 * width
        + 6 * width
        + (2 * width if flag(config, "norm_elementwise_affine", False) else 0),
    )
    text = channels(config, "caption_channels", 4096)
    latents = channels(config, "in_channels", 128)
    rest = Layers(
        joined(
            Linear("proj_in", Rows.IMAGE, latents, width),
            embedding("time_embed.emb.timestep_embedder", 256, width),
            Linear("time_embed.linear", Rows.VECTOR, width, 6 * width),
            embedding("caption_projection", text, width, Rows.PROMPT),
            Linear("proj_out", Rows.IMAGE, width, channels(config, "out_channels", 128)),
        ),
        vectors=2 * width,
    )
    return Shape(target.name, (block,), rest)
