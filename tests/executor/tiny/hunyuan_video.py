"""HunyuanVideo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from tests.executor.tiny import clip, llama
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32
LATENT_CHANNELS = 4
# The pipeline asks for this length whatever the tokenizer says.
CLIP_LENGTH = 77


def build(
    *,
    seed: int = 0,
    num_layers: int = 3,
    num_single_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 16,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 8 pixels and 4 frames.

    Sizes are multiples of 16, frames one more than a multiple of 4.
    """

    def make() -> Any:
        return HunyuanVideoPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            vae=autoencoder(),
            text_encoder=llama.llama_encoder(TEXT_WIDTH),
            tokenizer=llama.tokenizer(*llama.LLAMA),
            text_encoder_2=clip.text_encoder(TEXT_WIDTH, CLIP_LENGTH),
            tokenizer_2=clip.tokenizer(CLIP_LENGTH),
            transformer=drawn(
                HunyuanVideoTransformer3DModel(
                    in_channels=LATENT_CHANNELS,
                    out_channels=LATENT_CHANNELS,
                    num_attention_heads=num_attention_heads,
                    attention_head_dim=attention_head_dim,
                    num_layers=num_layers,
                    num_single_layers=num_single_layers,
                    num_refiner_layers=1,
                    mlp_ratio=2.0,
                    text_embed_dim=TEXT_WIDTH,
                    pooled_projection_dim=TEXT_WIDTH,
                    rope_axes_dim=(4, 6, 6),
                )
            ),
        )

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def autoencoder() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=LATENT_CHANNELS,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    ).eval()
