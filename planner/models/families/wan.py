"""Wan 2.1 and 2.2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    Handover,
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
from planner.models.reading import (
    Configs,
    channels,
    count,
    counts,
    flag,
    optional_channels,
    ratio,
)
from planner.models.schedule import read_schedule

_PROMPT = 512
_PICTURE = 257
"""Tokens that the image encoder gives for a picture."""


def wan(configs: Configs) -> ModelFacts:
    """Text to video."""
    return _facts(configs, "WanPipeline")


def wan_image_to_video(configs: Configs) -> ModelFacts:
    """Image to video."""
    return _facts(configs, "WanImageToVideoPipeline")


def _facts(configs: Configs, pipeline_class: str) -> ModelFacts:
    """One transformer, or two of which the first has the steps of high noise.

    The blocks run on one stream, the text is only attended to. Two forwards a step with a
    ``guidance_scale`` above 1.
    """
    index = configs.get("model_index.json", {})
    vae = configs.get("vae/config.json", {})
    first = configs["transformer/config.json"]
    spatial = count(vae, "scale_factor_spatial", 8, most=64)
    temporal = count(vae, "scale_factor_temporal", 4, most=64)
    patch = counts(first, "patch_size", (1, 2, 2))
    if patch[0] != 1 or patch[1] != patch[2]:
        raise ValueError(f"patch_size {list(patch)} is not supported")
    names = ["transformer"]
    handover = None
    if index.get("boundary_ratio") is not None:
        names.append("transformer_2")
        handover = Handover(
            ratio(index, "boundary_ratio", 1.0),
            read_schedule(configs["scheduler/scheduler_config.json"]),
        )
    transformers = {name: configs[f"{name}/config.json"] for name in names}
    targets = tuple(_target(name, config) for name, config in transformers.items())
    expanded = flag(index, "expand_timesteps", False)
    multiple = spatial * patch[1]
    return ModelFacts(
        architecture=Architecture("wan", pipeline_class, targets),
        groups=tuple(BlockGroup(name, ("blocks",), (Rows.IMAGE,)) for name in names),
        defaults=ModelDefaults(
            num_inference_steps=50,
            height=480 // multiple * multiple,
            width=832 // multiple * multiple,
            size_multiple=math.lcm(16, multiple),
            num_frames=81,
            frame_multiple=temporal,
        ),
        guidance=Guidance(GuidanceKind.SEPARATE, 5.0, negative_prompt=NegativePrompt.OPTIONAL),
        handover=handover,
        sequence=SequenceRule(
            patch=multiple,
            frames=temporal,
            prompt=_PROMPT,
            vision=_PICTURE if first.get("image_dim") is not None else 0,
        ),
        shapes=tuple(
            _shape(target, transformers[target.name], patch, expanded=expanded)
            for target in targets
        ),
        max_pictures=1 if pipeline_class == "WanImageToVideoPipeline" else 0,
    )


def _target(name: str, config: Mapping[str, Any]) -> Target:
    return Target(
        name=name,
        transformer_class="WanTransformer3DModel",
        block_lists=(BlockList("blocks", count(config, "num_layers", 40)),),
        num_attention_heads=count(config, "num_attention_heads", 40),
        attention_head_dim=channels(config, "attention_head_dim", 128),
    )


def _shape(
    target: Target, config: Mapping[str, Any], patch: tuple[int, ...], *, expanded: bool
) -> Shape:
    """``expanded``: every token has a timestep of its own."""
    width = target.hidden_size
    volume = patch[0] * patch[1] * patch[2]
    steps = Rows.IMAGE if expanded else Rows.VECTOR
    latents = channels(config, "in_channels", 16)
    out = channels(config, "out_channels", 16)
    picture = optional_channels(config, "image_dim")
    positions = optional_channels(config, "pos_embed_seq_len") or 0
    embedder = "condition_embedder"
    rest = Layers(
        joined(
            Linear("patch_embedding", Rows.IMAGE, latents * volume, width, convolution=True),
            embedding(f"{embedder}.time_embedder", channels(config, "freq_dim", 256), width, steps),
            Linear(f"{embedder}.time_proj", steps, width, 6 * width),
            embedding(
                f"{embedder}.text_embedder", channels(config, "text_dim", 4096), width, Rows.PROMPT
            ),
            ()
            if picture is None
            else (
                Linear(f"{embedder}.image_embedder.ff.net.0.proj", Rows.VISION, picture, picture),
                Linear(f"{embedder}.image_embedder.ff.net.2", Rows.VISION, picture, width),
            ),
            Linear("proj_out", Rows.IMAGE, width, out * volume),
        ),
        vectors=2 * width
        + (0 if picture is None else 2 * picture + 2 * width + positions * picture),
    )
    return Shape(target.name, (_block(width, config),), rest)


def _block(width: int, config: Mapping[str, Any]) -> Layers:
    added = optional_channels(config, "added_kv_proj_dim")
    crossed = flag(config, "cross_attn_norm", True)
    own = projections("attn1", ("to_q", "to_k", "to_v"), Rows.IMAGE, width, width)
    normed = (Rows.IMAGE, Rows.PROMPT)
    cross = Attention(Rows.IMAGE, Rows.PROMPT, width, exchanged=False, normed=normed)
    # With the queries of the other.
    seen = Attention(Rows.IMAGE, Rows.VISION, width, exchanged=False, normed=(Rows.VISION,))
    return Layers(
        joined(
            own,
            Linear("attn1.to_out.0", Rows.IMAGE, width, width, split=Split.ROWS),
            projections("attn2", ("to_q",), Rows.IMAGE, width, width),
            projections("attn2", ("to_k", "to_v"), Rows.PROMPT, width, width),
            ()
            if added is None
            else projections("attn2", ("add_k_proj", "add_v_proj"), Rows.VISION, added, width),
            Linear("attn2.to_out.0", Rows.IMAGE, width, width, split=Split.ROWS),
            feed_forward(
                "ffn.net.0.proj",
                "ffn.net.2",
                Rows.IMAGE,
                width,
                channels(config, "ffn_dim", 13824),
            ),
        ),
        (
            Attention(Rows.IMAGE, Rows.IMAGE, width, normed=(Rows.IMAGE, Rows.IMAGE)),
            cross,
            *(() if added is None else (seen,)),
        ),
        # Norms of queries and keys across heads, of the cross attention's input, the table.
        vectors=4 * width
        + (2 * width if crossed else 0)
        + (0 if added is None else width)
        + 6 * width,
    )
