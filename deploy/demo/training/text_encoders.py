"""Trains the two text encoders to tell the attributes of a scene from its caption."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from training.scenes import Colour, Place, Scene, Shape, Size
from training.tokenizers import TEXT_LENGTH, new_clip_tokenizer, new_t5_tokenizer

logger = logging.getLogger(__name__)

WIDTH = 64
"""Numbers in one token's embedding, and in the pooled embedding of a caption."""

_KINDS = (Shape, Colour, Size, Place)
_BATCH = 128


@dataclass
class TextEncoders:
    """What turns captions into the two inputs of the transformer."""

    clip: CLIPTextModel
    clip_tokenizer: CLIPTokenizer
    t5: T5EncoderModel
    t5_tokenizer: T5Tokenizer

    def embed(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """T5's sequence (captions, 16, 64) and CLIP's pooled embedding (captions, 64)."""
        sequence = self.t5(_tokens(self.t5_tokenizer, captions)).last_hidden_state
        pooled = self.clip(_tokens(self.clip_tokenizer, captions)).pooler_output
        return sequence, pooled

    def save(self, folder: Path) -> None:
        """Writes the four parts into the sub-folders of a pipeline."""
        for tokenizer in (self.clip_tokenizer, self.t5_tokenizer):
            tokenizer.backend_tokenizer.no_padding()  # `embed` left its own there
            tokenizer.backend_tokenizer.no_truncation()
        self.clip.save_pretrained(folder / "text_encoder")
        self.clip_tokenizer.save_pretrained(folder / "tokenizer")
        self.t5.save_pretrained(folder / "text_encoder_2")
        self.t5_tokenizer.save_pretrained(folder / "tokenizer_2")

    @classmethod
    def load(cls, folder: Path) -> TextEncoders:
        """Reads what `save` wrote."""
        return cls(
            CLIPTextModel.from_pretrained(folder / "text_encoder"),
            CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
            T5Tokenizer.from_pretrained(folder / "tokenizer_2"),
        )


def new_text_encoders(captions: list[str]) -> TextEncoders:
    """Untrained encoders with vocabularies that cover `captions`."""
    clip_tokenizer, t5_tokenizer = new_clip_tokenizer(captions), new_t5_tokenizer(captions)
    clip = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=clip_tokenizer.bos_token_id,
        eos_token_id=clip_tokenizer.eos_token_id,
        pad_token_id=clip_tokenizer.pad_token_id,
    )
    t5 = T5Config(
        vocab_size=len(t5_tokenizer),
        d_model=WIDTH,
        d_kv=16,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        use_cache=False,
    )
    return TextEncoders(CLIPTextModel(clip), clip_tokenizer, T5EncoderModel(t5), t5_tokenizer)


def train_text_encoders(scenes: list[Scene], steps: int, seed: int) -> TextEncoders:
    """Trains both encoders on captions of `scenes`; the heads that read them are thrown away."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoders = new_text_encoders([scene.caption(rng) for scene in scenes])
    outputs = len(Colour) + 2 * sum(len(kind) + 1 for kind in _KINDS)
    heads = nn.ModuleList([nn.Linear(WIDTH, outputs), nn.Linear(WIDTH, outputs)])
    parameters = [*encoders.clip.parameters(), *encoders.t5.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for step in range(steps):
        batch = rng.sample(scenes, _BATCH)
        sequence, pooled = encoders.embed([scene.caption(rng) for scene in batch])
        wanted = torch.tensor([_answers(scene) for scene in batch])
        loss = _loss(heads[0](sequence.mean(dim=1)), wanted) + _loss(heads[1](pooled), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps - 1:
            logger.info("text encoders step %d loss %.4f", step, loss.item())
    encoders.clip.eval()
    encoders.t5.eval()
    return encoders


def _tokens(tokenizer: CLIPTokenizer | T5Tokenizer, captions: list[str]) -> Tensor:
    padded = tokenizer(
        captions,
        padding="max_length",
        max_length=TEXT_LENGTH,
        truncation=True,
        return_tensors="pt",
    )
    tokens: Tensor = padded.input_ids
    return tokens


def _answers(scene: Scene) -> list[int]:
    """The background, then four attributes of the first and the second thing; 0 is none."""
    answers = [list(Colour).index(scene.background)]
    for index in range(2):
        if index >= len(scene.things):
            answers += [0] * len(_KINDS)
            continue
        thing = scene.things[index]
        values = (thing.shape, thing.colour, thing.size, thing.place)
        pairs = zip(_KINDS, values, strict=True)
        answers += [1 + [*kind].index(value) for kind, value in pairs]
    return answers


def _loss(logits: Tensor, wanted: Tensor) -> Tensor:
    widths = [len(Colour)] + 2 * [len(kind) + 1 for kind in _KINDS]
    parts = logits.split(widths, dim=-1)
    losses = [functional.cross_entropy(part, wanted[:, i]) for i, part in enumerate(parts)]
    return torch.stack(losses).mean()
