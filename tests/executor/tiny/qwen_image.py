"""Qwen-Image, Qwen-Image-Edit and Qwen-Image-Edit-Plus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from tests.executor.tiny import qwen
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32
LATENT_CHANNELS = 4
EDITING = {"edit": QwenImageEditPipeline, "edit-plus": QwenImageEditPlusPipeline}


def build(
    *,
    seed: int = 0,
    num_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 16,
    task: str = "draw",
) -> Any:
    """The pipeline in memory, fp32. ``task`` is draw, edit or edit-plus.

    To draw, a latent pixel is 4 image pixels and sizes are multiples of 8. The editing pipelines
    make a megapixel of whatever picture they are given: there a latent pixel is 32 image pixels
    (256 tokens a picture) and sizes are multiples of 64.
    """

    def make() -> Any:
        components: dict[str, Any] = {
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True),
            "vae": autoencoder(editing=task != "draw"),
            "text_encoder": qwen.vision_language_model(TEXT_WIDTH),
            "tokenizer": qwen.tokenizer(),
            "transformer": drawn(
                QwenImageTransformer2DModel(
                    in_channels=4 * LATENT_CHANNELS,
                    out_channels=LATENT_CHANNELS,
                    num_layers=num_layers,
                    attention_head_dim=attention_head_dim,
                    num_attention_heads=num_attention_heads,
                    joint_attention_dim=TEXT_WIDTH,
                    axes_dims_rope=(4, 6, 6),
                )
            ),
        }
        if task == "draw":
            return QwenImagePipeline(**components)
        return EDITING[task](processor=qwen.processor(), **components)

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def autoencoder(*, editing: bool) -> AutoencoderKLQwenImage:
    halvings = 5 if editing else 2
    return AutoencoderKLQwenImage(
        base_dim=2 if editing else 4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1] * (halvings + 1),
        # With any, a megapixel takes seconds.
        num_res_blocks=0 if editing else 1,
        temperal_downsample=[False] * halvings,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    ).eval()
