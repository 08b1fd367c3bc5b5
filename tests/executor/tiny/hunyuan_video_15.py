"""HunyuanVideo 1.5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)

from tests.executor.tiny import qwen, t5
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 32
GLYPH_WIDTH = 24
IMAGE_WIDTH = 20
LATENT_CHANNELS = 4


def build(
    *,
    seed: int = 0,
    num_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 16,
    guidance_scale: float = 6.0,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 16 pixels and 4 frames.

    Whatever the prompt, 1,985 tokens of text, glyphs and picture stand beside those of the video,
    and make a forward take half a second; see `shorten`.
    """

    def make() -> Any:
        return HunyuanVideo15Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            vae=autoencoder(),
            text_encoder=qwen.text_encoder(TEXT_WIDTH),
            tokenizer=qwen.tokenizer(),
            text_encoder_2=t5.encoder(GLYPH_WIDTH, t5.BYTES),
            tokenizer_2=t5.byte_tokenizer(),
            guider=ClassifierFreeGuidance(guidance_scale=guidance_scale),
            transformer=drawn(
                HunyuanVideo15Transformer3DModel(
                    # The latents, those of a first picture, and its mask.
                    in_channels=2 * LATENT_CHANNELS + 1,
                    out_channels=LATENT_CHANNELS,
                    num_attention_heads=num_attention_heads,
                    attention_head_dim=attention_head_dim,
                    num_layers=num_layers,
                    num_refiner_layers=1,
                    mlp_ratio=2.0,
                    text_embed_dim=TEXT_WIDTH,
                    text_embed_2_dim=GLYPH_WIDTH,
                    image_embed_dim=IMAGE_WIDTH,
                    rope_axes_dim=(4, 6, 6),
                    target_size=640,
                    task_type="t2v",
                )
            ),
        )

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def shorten(pipeline: Any) -> Any:
    """The pipeline with 312 such tokens; no checkpoint says so, it has to be done after loading."""
    pipeline.tokenizer_max_length = 300
    pipeline.tokenizer_2_max_length = 8
    pipeline.vision_num_semantic_tokens = 4
    return pipeline


def autoencoder() -> AutoencoderKLHunyuanVideo15:
    return AutoencoderKLHunyuanVideo15(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(8, 8, 8, 8, 8),
        layers_per_block=1,
        scaling_factor=1.0,
    ).eval()
