"""A seeded FLUX.1 pipeline of a few hundred kilobytes, made without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
TEXT_WIDTH = 32
CLIP_LENGTH = 16
T5_LENGTH = 24


def build(
    *,
    seed: int = 0,
    num_layers: int = 2,
    num_single_layers: int = 4,
    num_attention_heads: int = 4,
    attention_head_dim: int = 16,
    guidance_embeds: bool = True,
) -> Any:
    """The pipeline in memory: fp32, a latent pixel is 2 image pixels, sizes are multiples of 4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=_vae(),
            text_encoder=_clip_encoder(),
            tokenizer=_clip_tokenizer(),
            text_encoder_2=_t5_encoder(),
            tokenizer_2=_t5_tokenizer(),
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=num_layers,
                num_single_layers=num_single_layers,
                attention_head_dim=attention_head_dim,
                num_attention_heads=num_attention_heads,
                joint_attention_dim=TEXT_WIDTH,
                pooled_projection_dim=TEXT_WIDTH,
                guidance_embeds=guidance_embeds,
                axes_dims_rope=(4, 6, 6),
            ).eval(),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(directory: Path, **options: Any) -> Path:
    """Writes the pipeline as a checkpoint directory; options as in `build`."""
    build(**options).save_pretrained(directory, safe_serialization=True)
    return directory


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=32,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ).eval()


def _clip_vocabulary() -> dict[str, int]:
    pieces = ["<|startoftext|>", "<|endoftext|>"]
    pieces += [character + end for end in ("", "</w>") for character in CHARACTERS]
    return {piece: position for position, piece in enumerate(pieces)}


def _clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=CLIP_LENGTH)


def _clip_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(_clip_vocabulary()),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    ).eval()


def _t5_vocabulary() -> list[tuple[str, float]]:
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return [*specials, ("▁", -2.0), *((character, -3.0) for character in CHARACTERS)]


def _t5_tokenizer() -> T5Tokenizer:
    return T5Tokenizer(vocab=_t5_vocabulary(), extra_ids=0, model_max_length=T5_LENGTH)


def _t5_encoder() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(_t5_vocabulary()),
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * TEXT_WIDTH,
            num_layers=1,
            num_heads=2,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    ).eval()
