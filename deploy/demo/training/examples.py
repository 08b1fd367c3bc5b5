"""What the transformer learns from: latents of pictures with embeddings of their captions."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxPipeline
from torch import Tensor

from training.autoencoder import encode, pictures
from training.scenes import Scene
from training.text_encoders import TextEncoders

_PART = 500


@dataclass
class Examples:
    """Precomputed examples, all float16; row 0 of the two embeddings is the empty caption."""

    latents: Tensor
    """(n, 64, 32): the 2 x 2 packed latents of n pictures, the way the transformer sees them."""
    sequence: Tensor
    """(n + 1, 16, 64): T5's embedding of the empty caption and of each picture's caption."""
    pooled: Tensor
    """(n + 1, 64): CLIP's embedding of the same."""

    def batch(self, chosen: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The chosen rows in float32; where `dropped`, with the empty caption."""
        rows = torch.where(dropped, 0, chosen + 1)
        return self.latents[chosen].float(), self.sequence[rows].float(), self.pooled[rows].float()

    def save(self, path: Path) -> None:
        """Writes the three tensors."""
        torch.save((self.latents, self.sequence, self.pooled), path)

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Reads what `save` wrote, shared between processes through the page cache."""
        return cls(*torch.load(path, mmap=True))


@torch.no_grad()
def make_examples(
    scenes: list[Scene], autoencoder: AutoencoderKL, encoders: TextEncoders, seed: int
) -> Examples:
    """Draws, captions and encodes `scenes`."""
    rng = random.Random(seed)
    latents: list[Tensor] = []
    embeddings = [encoders.embed([""])]
    for start in range(0, len(scenes), _PART):
        part = scenes[start : start + _PART]
        latents.append(_pack(encode(autoencoder, pictures(part, seed + start))).half())
        embeddings.append(encoders.embed([scene.caption(rng) for scene in part]))
    sequence, pooled = zip(*embeddings, strict=True)
    return Examples(torch.cat(latents), torch.cat(sequence).half(), torch.cat(pooled).half())


def _pack(latents: Tensor) -> Tensor:
    packed: Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
    return packed
