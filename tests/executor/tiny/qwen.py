"""Qwen: a tokenizer with its special tokens, Qwen3 and Qwen2.5-VL encoders."""

from __future__ import annotations

from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from executor.placement.processor import PictureProcessor
from tests.executor.tiny import bpe

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
VOCABULARY = len(bpe.of_bytes().vocabulary(*SPECIALS))
CHAT = """{% for message in messages %}\
<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n\
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"""


def tokenizer() -> Qwen2Tokenizer:
    pairs = bpe.of_bytes()
    return Qwen2Tokenizer(
        vocab=pairs.vocabulary(*SPECIALS),
        merges=pairs.merges,
        extra_special_tokens=list(SPECIALS[1:]),
        chat_template=CHAT,
        padding_side="right",
    )


# Saved under the name that checkpoints have.
_Processor = type(
    "Qwen2VLProcessor", (PictureProcessor,), {"__module__": Qwen2VLProcessor.__module__}
)


def processor() -> Qwen2VLProcessor:
    """Makes four tokens of every picture."""
    return _Processor(
        Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 56 * 56}),
        tokenizer(),
        chat_template=CHAT,
    )


def _sizes(width: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        **IDS,
    }


def language_model(width: int) -> Qwen3ForCausalLM:
    """27 layers, since FLUX.2 Klein reads the outputs of layers 9, 18 and 27."""
    return Qwen3ForCausalLM(Qwen3Config(head_dim=width // 2, **_sizes(width, 27))).eval()


def encoder(width: int) -> Qwen3Model:
    return Qwen3Model(Qwen3Config(head_dim=width // 2, **_sizes(width, 2))).eval()


def _rope(width: int) -> dict[str, Any]:
    half = width // 4
    time = half // 4
    rest = (half - time) // 2
    return {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [half - 2 * rest, rest, rest],
    }


def text_encoder(width: int) -> Qwen2_5_VLTextModel:
    """Three layers: HunyuanVideo 1.5 reads the input of the last but one."""
    return Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(rope_parameters=_rope(width), **_sizes(width, 3))
    ).eval()


def vision_language_model(width: int) -> Qwen2_5_VLForConditionalGeneration:
    """Pictures come in patches of 14 pixels, four of them a token."""
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={"rope_parameters": _rope(width), **_sizes(width, 2)},
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": width,
                "fullatt_block_indexes": [0],
            },
            vision_start_token_id=SPECIALS.index("<|vision_start|>"),
            vision_end_token_id=SPECIALS.index("<|vision_end|>"),
            image_token_id=SPECIALS.index("<|image_pad|>"),
            video_token_id=SPECIALS.index("<|video_pad|>"),
            tie_word_embeddings=True,
            **IDS,
        )
    ).eval()
