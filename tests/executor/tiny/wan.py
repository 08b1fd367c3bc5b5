"""Wan 2.1 and 2.2, from text and from a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.executor.tiny import clip, t5
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32
LATENT_CHANNELS = 4
FRAMES_A_LATENT = 4


def build(
    *,
    seed: int = 0,
    num_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 12,
    boundary_ratio: float | None = None,
    from_picture: bool = False,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 4 pixels and 4 frames.

    Sizes are multiples of 16, frames one more than a multiple of 4. With a ``boundary_ratio`` it
    is a Wan 2.2 of two transformers, without one a Wan 2.1.
    """
    # The mask of known frames, then the latents of the picture.
    condition_channels = FRAMES_A_LATENT + LATENT_CHANNELS if from_picture else 0
    sees = from_picture and boundary_ratio is None

    def transformer() -> WanTransformer3DModel:
        return drawn(
            WanTransformer3DModel(
                num_layers=num_layers,
                num_attention_heads=num_attention_heads,
                attention_head_dim=attention_head_dim,
                in_channels=LATENT_CHANNELS + condition_channels,
                out_channels=LATENT_CHANNELS,
                text_dim=TEXT_WIDTH,
                freq_dim=32,
                ffn_dim=96,
                rope_max_seq_len=64,
                image_dim=clip.VISION_WIDTH if sees else None,
                added_kv_proj_dim=num_attention_heads * attention_head_dim if sees else None,
            )
        )

    def make() -> Any:
        components: dict[str, Any] = {
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
            "vae": autoencoder(),
            "text_encoder": t5.multilingual_encoder(TEXT_WIDTH),
            "tokenizer": t5.tokenizer(),
            "transformer": transformer(),
            "transformer_2": None if boundary_ratio is None else transformer(),
            "boundary_ratio": boundary_ratio,
        }
        if not from_picture:
            return WanPipeline(**components)
        return WanImageToVideoPipeline(
            image_encoder=clip.vision_encoder() if sees else None,
            image_processor=clip.image_processor() if sees else None,
            **components,
        )

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def autoencoder() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=FRAMES_A_LATENT,
        scale_factor_spatial=4,
    ).eval()
