"""Builds the two tokenizers from the captions of the demo world, with nothing to download."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer, T5Tokenizer

TEXT_LENGTH = 16
"""Tokens every caption is padded to, for both encoders: what the transformer is trained with."""

_WORD_END = "</w>"
_PUNCTUATION = ".,;:!?"


def new_t5_tokenizer(captions: Iterable[str]) -> T5Tokenizer:
    """A Unigram tokenizer with one piece for each word of `captions`, and letters for the rest."""
    words = {f"▁{word}" for word in _words(captions)}
    letters = {*"▁", *string.ascii_lowercase, *_PUNCTUATION} | {
        f"▁{letter}" for letter in string.ascii_lowercase
    }
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -1.0) for piece in sorted(words)]
    vocabulary += [(piece, -20.0) for piece in sorted(letters - words)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=TEXT_LENGTH)


def new_clip_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """A BPE tokenizer that merges every word of `captions` to one token."""
    trained = Tokenizer(BPE(end_of_word_suffix=_WORD_END))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    trained.train_from_iterator(_words(captions), trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for character in string.ascii_lowercase + string.digits + _PUNCTUATION:
        for piece in (character, character + _WORD_END):
            vocabulary.setdefault(piece, len(vocabulary))
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH)


def _words(captions: Iterable[str]) -> list[str]:
    return sorted({word.strip(_PUNCTUATION) for text in captions for word in text.split()})
