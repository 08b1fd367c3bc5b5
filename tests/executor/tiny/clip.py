"""CLIP: a tokenizer of single characters, a text encoder and a vision encoder."""

from __future__ import annotations

from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
)

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
LENGTH = 16
VISION_WIDTH = 20


def _vocabulary() -> dict[str, int]:
    pieces = ["<|startoftext|>", "<|endoftext|>"]
    pieces += [character + end for end in ("", "</w>") for character in CHARACTERS]
    return {piece: position for position, piece in enumerate(pieces)}


def tokenizer(length: int = LENGTH) -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=length)


def text_encoder(width: int, length: int = LENGTH) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(_vocabulary()),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=length,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    ).eval()


def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def vision_encoder() -> CLIPVisionModel:
    """16 pixels in patches of 4: 17 tokens."""
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=2 * VISION_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
        )
    ).eval()
