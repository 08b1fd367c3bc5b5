"""Z-Image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

from tests.executor.tiny import autoencoder_kl, qwen
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32
HEAD_DIM = 12


def build(*, seed: int = 0, n_layers: int = 4, n_heads: int = 4) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 2 image pixels, sizes are multiples of 4."""

    def make() -> Any:
        return ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=autoencoder_kl.autoencoder(),
            text_encoder=qwen.encoder(TEXT_WIDTH),
            tokenizer=qwen.tokenizer(),
            transformer=drawn(
                ZImageTransformer2DModel(
                    in_channels=autoencoder_kl.LATENT_CHANNELS,
                    # A multiple of 3, so that the feed-forward, 8 / 3 as wide, can be divided.
                    dim=n_heads * HEAD_DIM,
                    n_layers=n_layers,
                    n_refiner_layers=1,
                    n_heads=n_heads,
                    n_kv_heads=n_heads,
                    cap_feat_dim=TEXT_WIDTH,
                    axes_dims=[HEAD_DIM // 3] * 3,
                    axes_lens=[1024, 64, 64],
                )
            ),
        )

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory
