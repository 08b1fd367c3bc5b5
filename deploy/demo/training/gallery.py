"""Draws prompts with the finished pipeline and lays the pictures out on one sheet."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from training.drawing import Array
from training.scenes import PICTURE_SIZE
from training.tokenizers import TEXT_LENGTH

STEPS = 28
_BATCH = 16
_ZOOM = 2


def draw_prompts(pipeline: FluxPipeline, prompts: list[str], steps: int = STEPS) -> Array:
    """Pictures of `prompts`, each from its own seed: (n, 64, 64, 3) float32, 0 to 1."""
    drawn = []
    for start in range(0, len(prompts), _BATCH):
        texts = prompts[start : start + _BATCH]
        seeds = range(start, start + len(texts))
        result = pipeline(
            texts,
            height=PICTURE_SIZE,
            width=PICTURE_SIZE,
            max_sequence_length=TEXT_LENGTH,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        drawn.append(result.images)
    return np.concatenate(drawn).astype(np.float32)


def contact_sheet(pictures: Array, columns: int = 8) -> Image.Image:
    """All pictures on one sheet, row by row, twice their size."""
    rows = -(-len(pictures) // columns)
    missing = np.ones((rows * columns - len(pictures), *pictures.shape[1:]), np.float32)
    grid = np.concatenate([pictures, missing]).reshape(rows, columns, *pictures.shape[1:])
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(rows * PICTURE_SIZE, columns * PICTURE_SIZE, 3)
    image = Image.fromarray((sheet * 255).round().astype(np.uint8))
    return image.resize((image.width * _ZOOM, image.height * _ZOOM), Image.Resampling.NEAREST)
