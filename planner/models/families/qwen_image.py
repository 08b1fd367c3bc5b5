"""Qwen-Image and Qwen-Image-Edit."""

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
from planner.models.reading import Configs, channels, count, levels

_PROMPT = 512
# Tokens of a square picture in the prompt, 28 x 28 pixels each: one of 1024 or of 384 pixels.
_PICTURE, _SMALL_PICTURE = 37 * 37, 14 * 14


def qwen_image(configs: Configs) -> ModelFacts:
    """Text to image; two forwards a step with a negative prompt and ``true_cfg_scale`` above 1."""
    return _facts(configs, "QwenImagePipeline", prompt=_PROMPT, pictures=0)


def qwen_image_edit(configs: Configs) -> ModelFacts:
    """One picture to be edited: in the prompt, and as latents of 1024 x 1024 pixels."""
    return _facts(configs, "QwenImageEditPipeline", prompt=_PROMPT + _PICTURE, pictures=1)


def qwen_image_edit_plus(configs: Configs) -> ModelFacts:
    """Up to three pictures, of which one is counted: small in the prompt, large as latents."""
    prompt = _PROMPT + _SMALL_PICTURE
    return _facts(configs, "QwenImageEditPlusPipeline", prompt=prompt, pictures=3)


def _facts(configs: Configs, pipeline_class: str, *, prompt: int, pictures: int) -> ModelFacts:
    transformer = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    multiple = 2 * 2 ** levels(vae, "temperal_downsample", 3)
    # Edits take the size of their picture, which is brought to this area.
    size = 1024 if pictures else 64 * multiple
    target = Target(
        name="transformer",
        transformer_class="QwenImageTransformer2DModel",
        block_lists=(BlockList("transformer_blocks", count(transformer, "num_layers", 60)),),
        num_attention_heads=count(transformer, "num_attention_heads", 24),
        attention_head_dim=channels(transformer, "attention_head_dim", 128),
    )
    return ModelFacts(
        architecture=Architecture("qwen_image", pipeline_class, (target,)),
        groups=(BlockGroup(target.name, ("transformer_blocks",)),),
        defaults=ModelDefaults(50, size, size, multiple, follows_picture=pictures > 0),
        guidance=Guidance(GuidanceKind.SEPARATE, 4.0, negative_prompt=NegativePrompt.REQUIRED),
        sequence=SequenceRule(
            patch=multiple, prompt=prompt, reference=(1024 // multiple) ** 2 if pictures else 0
        ),
        shapes=(_shape(target, transformer),),
        max_pictures=pictures,
    )


def _shape(target: Target, config: Mapping[str, Any]) -> Shape:
    width, head = target.hidden_size, target.attention_head_dim
    patch = count(config, "patch_size", 2)
    text = channels(config, "joint_attention_dim", 3584)
    latents = channels(config, "in_channels", 64)
    out = channels(config, "out_channels", 16)
    added = ("add_q_proj", "add_k_proj", "add_v_proj")
    block = Layers(
        joined(
            Linear("img_mod.1", Rows.VECTOR, width, 6 * width),
            Linear("txt_mod.1", Rows.VECTOR, width, 6 * width),
            projections("attn", ("to_q", "to_k", "to_v"), Rows.IMAGE, width, width),
            projections("attn", added, Rows.TEXT, width, width),
            Linear("attn.to_out.0", Rows.IMAGE, width, width, split=Split.ROWS),
            Linear("attn.to_add_out", Rows.TEXT, width, width, split=Split.ROWS),
            feed_forward("img_mlp.net.0.proj", "img_mlp.net.2", Rows.IMAGE, width, 4 * width),
            feed_forward("txt_mlp.net.0.proj", "txt_mlp.net.2", Rows.TEXT, width, 4 * width),
        ),
        (Attention(Rows.JOINT, Rows.JOINT, width),),
        vectors=4 * head,
    )
    rest = Layers(
        joined(
            embedding("time_text_embed.timestep_embedder", 256, width),
            Linear("img_in", Rows.IMAGE, latents, width),
            Linear("txt_in", Rows.TEXT, text, width),
            Linear("norm_out.linear", Rows.VECTOR, width, 2 * width),
            Linear("proj_out", Rows.IMAGE, width, patch * patch * out),
        ),
        vectors=text,
    )
    return Shape(target.name, (block,), rest)
