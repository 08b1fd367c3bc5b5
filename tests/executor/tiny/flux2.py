"""FLUX.2 and FLUX.2 Klein."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)

from tests.executor.tiny import llama, qwen
from tests.executor.tiny.seeded import seeded
from tests.executor.tiny.weights import drawn

TEXT_WIDTH = 16
LAYERS_READ = 3


def build(
    *,
    seed: int = 0,
    num_layers: int = 3,
    num_single_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 16,
    klein: bool = False,
    is_distilled: bool = False,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 2 image pixels, sizes are multiples of 4."""

    def make() -> Any:
        components: dict[str, Any] = {
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            "vae": autoencoder(),
            "transformer": drawn(
                Flux2Transformer2DModel(
                    patch_size=1,
                    in_channels=16,
                    num_layers=num_layers,
                    num_single_layers=num_single_layers,
                    attention_head_dim=attention_head_dim,
                    num_attention_heads=num_attention_heads,
                    joint_attention_dim=LAYERS_READ * TEXT_WIDTH,
                    timestep_guidance_channels=32,
                    mlp_ratio=2.0,
                    axes_dims_rope=(4, 4, 4, 4),
                    guidance_embeds=not klein,
                )
            ),
        }
        if klein:
            return Flux2KleinPipeline(
                text_encoder=qwen.language_model(TEXT_WIDTH),
                tokenizer=qwen.tokenizer(),
                is_distilled=is_distilled,
                **components,
            )
        # A PixtralProcessor, which is what checkpoints have here, needs torchvision; of text it
        # makes what its tokenizer makes.
        return Flux2Pipeline(
            text_encoder=llama.mistral_encoder(TEXT_WIDTH),
            tokenizer=llama.tokenizer(*llama.MISTRAL, chat_template=llama.CHAT),
            **components,
        )

    return seeded(seed, make)


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def autoencoder() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ).eval()
