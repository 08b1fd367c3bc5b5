"""HunyuanVideo and HunyuanVideo-1.5."""

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
from planner.models.families.flux1 import double_block, single_block
from planner.models.guidance import NO_GUIDANCE, Guidance, GuidanceKind, NegativePrompt
from planner.models.layers import (
    Attention,
    Layers,
    Linear,
    Rows,
    Shape,
    embedding,
    joined,
)
from planner.models.lengths import SequenceRule
from planner.models.reading import Configs, channels, count, flag, ratio

# HunyuanVideo-1.5 pads both prompts, and has a place for a picture even where there is none.
_PROMPT, _GLYPH, _PICTURE = 1000, 256, 729
_SIZES = {640: (480, 848), 960: (720, 1280)}
"""Height and width of 16 : 9 that the pipeline chooses for a ``target_size``."""
_WHOLE_RUN = {
    "_class_name": "ClassifierFreeGuidance",
    "use_original_formulation": False,
    "start": 0.0,
    "stop": 1.0,
    "enabled": True,
}
"""The guider that runs two forwards in every step."""


def hunyuan_video(configs: Configs) -> ModelFacts:
    """HunyuanVideo: double and single blocks cached apart; guidance is embedded."""
    config = configs["transformer/config.json"]
    if config.get("image_condition_type") is not None:
        raise ValueError("image_condition_type is not supported")
    vae = configs.get("vae/config.json", {})
    spatial = count(vae, "spatial_compression_ratio", 8, most=64)
    temporal = count(vae, "temporal_compression_ratio", 4, most=64)
    patch, depth = count(config, "patch_size", 2), count(config, "patch_size_t", 1)
    if depth != 1:
        raise ValueError(f"patch_size_t {depth} is not supported")
    target = Target(
        name="transformer",
        transformer_class="HunyuanVideoTransformer3DModel",
        block_lists=(
            BlockList("transformer_blocks", count(config, "num_layers", 20, least=0)),
            BlockList("single_transformer_blocks", count(config, "num_single_layers", 40, least=0)),
        ),
        num_attention_heads=count(config, "num_attention_heads", 24),
        attention_head_dim=channels(config, "attention_head_dim", 128),
    )
    embedded = flag(config, "guidance_embeds", True)
    return ModelFacts(
        architecture=Architecture("hunyuan_video", "HunyuanVideoPipeline", (target,)),
        groups=tuple(BlockGroup(target.name, (blocks.name,)) for blocks in target.block_lists),
        defaults=ModelDefaults(
            num_inference_steps=50,
            height=720,
            width=1280,
            size_multiple=math.lcm(16, spatial * patch),
            num_frames=129,
            frame_multiple=temporal,
        ),
        guidance=Guidance(GuidanceKind.EMBEDDED, 6.0) if embedded else NO_GUIDANCE,
        sequence=SequenceRule(patch=spatial * patch, frames=temporal, prompt=256),
        shapes=(_shape(target, config, patch, guidance_embeds=embedded),),
    )


def hunyuan_video_15(configs: Configs) -> ModelFacts:
    """HunyuanVideo-1.5: double blocks only; its guider runs two forwards a step."""
    config = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    spatial = count(vae, "spatial_compression_ratio", 16, most=64)
    temporal = count(vae, "temporal_compression_ratio", 4, most=64)
    patch, depth = count(config, "patch_size", 1), count(config, "patch_size_t", 1)
    if depth != 1:
        raise ValueError(f"patch_size_t {depth} is not supported")
    size = channels(config, "target_size", 640)
    if size not in _SIZES:
        raise ValueError(f"target_size is {size}, not one of {sorted(_SIZES)}")
    height, width = _SIZES[size]
    target = Target(
        name="transformer",
        transformer_class="HunyuanVideo15Transformer3DModel",
        block_lists=(BlockList("transformer_blocks", count(config, "num_layers", 54)),),
        num_attention_heads=count(config, "num_attention_heads", 16),
        attention_head_dim=channels(config, "attention_head_dim", 128),
    )
    return ModelFacts(
        architecture=Architecture("hunyuan_video_15", "HunyuanVideo15Pipeline", (target,)),
        groups=(BlockGroup(target.name, ("transformer_blocks",)),),
        defaults=ModelDefaults(
            num_inference_steps=50,
            height=height,
            width=width,
            size_multiple=spatial * patch,
            num_frames=121,
            frame_multiple=temporal,
        ),
        guidance=_guider(configs.get("guider/guider_config.json", {})),
        sequence=SequenceRule(
            patch=spatial * patch,
            frames=temporal,
            prompt=_PROMPT,
            glyph=_GLYPH,
            vision=_PICTURE,
            vision_in_text=True,
        ),
        shapes=(_shape_15(target, config, patch),),
    )


def _guider(config: Mapping[str, Any]) -> Guidance:
    """The guidance of a guider that runs in every step."""
    given = {key: config[key] for key in _WHOLE_RUN if key in config}
    if given != {key: _WHOLE_RUN[key] for key in given}:
        raise ValueError(f"the guider's {given} is not supported, only {_WHOLE_RUN}")
    return Guidance(
        GuidanceKind.SEPARATE,
        ratio(config, "guidance_scale", 7.5),
        below_too=True,
        negative_prompt=NegativePrompt.OPTIONAL,
    )


def _shape(
    target: Target, config: Mapping[str, Any], patch: int, *, guidance_embeds: bool
) -> Shape:
    width, head = target.hidden_size, target.attention_head_dim
    inner = int(width * ratio(config, "mlp_ratio", 4.0))
    refiners = count(config, "num_refiner_layers", 2, least=0, most=64)
    refiner = _refiner(width, channels(config, "text_embed_dim", 4096), refiners)
    pooled = channels(config, "pooled_projection_dim", 768)
    rest = Layers(
        joined(
            _patches(config, patch, width, 16),
            refiner.linears,
            embedding("time_text_embed.timestep_embedder", 256, width),
            embedding("time_text_embed.text_embedder", pooled, width),
            embedding("time_text_embed.guidance_embedder", 256, width) if guidance_embeds else (),
            _last(config, patch, width, 16),
        ),
        refiner.attentions,
        refiner.vectors,
    )
    blocks = (double_block(width, head, inner), single_block(width, head, inner))
    return Shape(target.name, blocks, rest)


def _shape_15(target: Target, config: Mapping[str, Any], patch: int) -> Shape:
    width, head = target.hidden_size, target.attention_head_dim
    inner = int(width * ratio(config, "mlp_ratio", 4.0))
    refiners = count(config, "num_refiner_layers", 2, least=0, most=64)
    refiner = _refiner(width, channels(config, "text_embed_dim", 3584), refiners)
    glyph = channels(config, "text_embed_2_dim", 1472)
    picture = channels(config, "image_embed_dim", 1152)
    rest = Layers(
        joined(
            _patches(config, patch, width, 65),
            Linear("image_embedder.linear_1", Rows.VISION, picture, picture),
            Linear("image_embedder.linear_2", Rows.VISION, picture, width),
            refiner.linears,
            Linear("context_embedder_2.linear_1", Rows.GLYPH, glyph, 2048),
            Linear("context_embedder_2.linear_2", Rows.GLYPH, 2048, 2048),
            Linear("context_embedder_2.linear_3", Rows.GLYPH, 2048, width),
            embedding("time_embed.timestep_embedder", 256, width),
            embedding("time_embed.timestep_embedder_r", 256, width, Rows.UNUSED)
            if flag(config, "use_meanflow", False)
            else (),
            _last(config, patch, width, 32),
        ),
        refiner.attentions,
        # Norms around the picture and before the glyphs, and one row for each kind of token.
        refiner.vectors + 2 * picture + 2 * width + 2 * glyph + 3 * width,
    )
    return Shape(target.name, (double_block(width, head, inner),), rest)


def _patches(config: Mapping[str, Any], patch: int, width: int, latents: int) -> Linear:
    inputs = channels(config, "in_channels", latents) * patch * patch
    return Linear("x_embedder.proj", Rows.IMAGE, inputs, width, convolution=True)


def _last(config: Mapping[str, Any], patch: int, width: int, latents: int) -> tuple[Linear, ...]:
    outputs = channels(config, "out_channels", latents) * patch * patch
    return (
        Linear("norm_out.linear", Rows.VECTOR, width, 2 * width),
        Linear("proj_out", Rows.IMAGE, width, outputs),
    )


def _refiner(width: int, text: int, layers: int) -> Layers:
    """What the prompt passes through before the blocks, in every forward."""
    name = "context_embedder"
    blocks = [f"{name}.token_refiner.refiner_blocks.{i}" for i in range(layers)]
    return Layers(
        joined(
            embedding(f"{name}.time_text_embed.timestep_embedder", 256, width),
            embedding(f"{name}.time_text_embed.text_embedder", text, width),
            Linear(f"{name}.proj_in", Rows.PROMPT, text, width),
            *(_refiner_block(block, width) for block in blocks),
        ),
        (Attention(Rows.PROMPT, Rows.PROMPT, width),) * layers,
        vectors=4 * width * layers,
    )


def _refiner_block(name: str, width: int) -> tuple[Linear, ...]:
    inner = 4 * width
    return (
        *(
            Linear(f"{name}.attn.{layer}", Rows.PROMPT, width, width)
            for layer in ("to_q", "to_k", "to_v", "to_out.0")
        ),
        Linear(f"{name}.ff.net.0.proj", Rows.PROMPT, width, inner),
        Linear(f"{name}.ff.net.2", Rows.PROMPT, inner, width),
        Linear(f"{name}.norm_out.linear", Rows.VECTOR, width, 2 * width),
    )
