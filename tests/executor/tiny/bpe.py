"""Small byte-pair vocabularies, trained in code: bytes as Qwen has them, text as Llama has it."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

# Words of the templates that pipelines put around a prompt, so that these stay short enough;
# prompts are spelt out nearly letter by letter.
CORPUS = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background",
    "Describe the key features of the input image, then explain how the user's text instruction "
    "should alter or modify the image. Generate a new image that meets the user's requirements "
    "while maintaining consistency with the original input where appropriate.",
    "Describe the video by detailing the following aspects: The main content and theme of the "
    "video. Actions, events, behaviors temporal relationships, physical movement changes of the "
    "objects. background environment, light, style and atmosphere. camera angles, movements, and "
    "transitions used in the video. You are a helpful assistant.",
)
MERGES = 150


@dataclass(frozen=True, slots=True)
class BytePairs:
    pieces: tuple[str, ...]
    merges: list[tuple[str, str]]

    def vocabulary(self, *specials: str) -> dict[str, int]:
        """Special tokens first, so that their ids do not depend on the training."""
        return {piece: position for position, piece in enumerate((*specials, *self.pieces))}


@cache
def of_bytes() -> BytePairs:
    return _trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.ByteLevel.alphabet()
    )


@cache
def of_text() -> BytePairs:
    return _trained(pre_tokenizers.Metaspace(), ["▁", *sorted(string.printable)])


def _trained(pre_tokenizer: pre_tokenizers.PreTokenizer, alphabet: list[str]) -> BytePairs:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    pieces = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    return BytePairs(pieces, [(left, right) for left, right in model["merges"]])
