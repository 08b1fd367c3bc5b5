"""LTX-Video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from tests.executor.tiny import t5
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32
LATENT_CHANNELS = 8


def build(
    *,
    seed: int = 0,
    num_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 12,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 8 pixels and 2 frames.

    Sizes are multiples of 32, frames one more than a multiple of 2.
    """

    def make() -> Any:
        return LTXPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=autoencoder(),
            text_encoder=t5.encoder(TEXT_WIDTH),
            tokenizer=t5.tokenizer(),
            transformer=drawn(
                LTXVideoTransformer3DModel(
                    in_channels=LATENT_CHANNELS,
                    out_channels=LATENT_CHANNELS,
                    num_layers=num_layers,
                    num_attention_heads=num_attention_heads,
                    attention_head_dim=attention_head_dim,
                    cross_attention_dim=num_attention_heads * attention_head_dim,
                    caption_channels=TEXT_WIDTH,
                )
            ),
        )

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def autoencoder() -> AutoencoderKLLTXVideo:
    return AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False),
        decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(False,) * 3,
        downsample_type=("conv",) * 2,
        upsample_residual=(False,) * 2,
        upsample_factor=(1,) * 2,
        patch_size=4,
    ).eval()
