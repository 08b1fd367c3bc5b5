"""FLUX.1, of a few hundred kilobytes, and FLUX.1 with a ControlNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)

from tests.executor.tiny import autoencoder_kl, clip, t5
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32


def build(
    *,
    seed: int = 0,
    num_layers: int = 2,
    num_single_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 16,
    guidance_embeds: bool = True,
    controlnet: bool = False,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 2 image pixels, sizes are multiples of 4."""
    sizes: dict[str, Any] = {
        "patch_size": 1,
        "in_channels": 16,
        "attention_head_dim": attention_head_dim,
        "num_attention_heads": num_attention_heads,
        "joint_attention_dim": TEXT_WIDTH,
        "pooled_projection_dim": TEXT_WIDTH,
        "guidance_embeds": guidance_embeds,
        "axes_dims_rope": (4, 6, 6),
    }

    def components() -> dict[str, Any]:
        return {
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            "vae": autoencoder_kl.autoencoder(),
            "text_encoder": clip.text_encoder(TEXT_WIDTH),
            "tokenizer": clip.tokenizer(),
            "text_encoder_2": t5.encoder(TEXT_WIDTH),
            "tokenizer_2": t5.tokenizer(),
            "transformer": FluxTransformer2DModel(
                num_layers=num_layers, num_single_layers=num_single_layers, **sizes
            ).eval(),
        }

    def with_controlnet() -> FluxControlNetPipeline:
        # Fewer blocks than the transformer has: each of its samples serves several of them.
        control = FluxControlNetModel(num_layers=1, num_single_layers=2, **sizes)
        return FluxControlNetPipeline(**components(), controlnet=drawn(control))

    return seeded(seed, with_controlnet if controlnet else lambda: FluxPipeline(**components()))


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory
