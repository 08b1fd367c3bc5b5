"""T5 and its kin: a tokenizer of single characters, one of bytes, and the encoders."""

from __future__ import annotations

from typing import Any

from transformers import (
    ByT5Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
LENGTH = 24
BYTES = 3 + 256


def _vocabulary() -> list[tuple[str, float]]:
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return [*specials, ("▁", -2.0), *((character, -3.0) for character in CHARACTERS)]


def tokenizer(length: int = LENGTH) -> T5Tokenizer:
    return T5Tokenizer(vocab=_vocabulary(), extra_ids=0, model_max_length=length)


def byte_tokenizer() -> ByT5Tokenizer:
    return ByT5Tokenizer(extra_ids=0)


def _sizes(width: int, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": 16,
        "d_ff": 2 * width,
        "num_layers": 1,
        "num_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }


def encoder(width: int, vocabulary: int = len(_vocabulary())) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**_sizes(width, vocabulary))).eval()


def multilingual_encoder(width: int) -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(**_sizes(width, len(_vocabulary())))).eval()
