"""How far a picture is from the uncached one, and whether it shows what its prompt asks for."""

from __future__ import annotations

from dataclasses import dataclass

import flip_evaluator
import numpy as np
from skimage.metrics import structural_similarity
from training.captions import scene_of
from training.score import judge

from tests.bench.headline.engines import Pixels


@dataclass(frozen=True, slots=True)
class Closeness:
    """``psnr`` in dB, None where the pictures are identical; ``ssim`` 1 and ``flip`` 0 are best."""

    psnr: float | None
    ssim: float
    flip: float


def closeness(reference: Pixels, picture: Pixels) -> Closeness:
    """Of 8-bit pictures: (64, 64, 3). No learned metric: their weights are not to be had offline.

    FLIP is the mean error that one would see when the two pictures alternate on a screen.
    """
    error = np.mean((reference.astype(np.float64) - picture) ** 2)
    unit = [(each / 255).astype(np.float32) for each in (reference, picture)]
    return Closeness(
        psnr=None if error == 0 else float(10 * np.log10(255**2 / error)),
        ssim=float(
            structural_similarity(
                reference,
                picture,
                channel_axis=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        ),
        flip=float(flip_evaluator.evaluate(*unit, "LDR", applyMagma=False)[1]),
    )


def fulfils(picture: Pixels, prompt: str) -> bool:
    """Whether background, colour, shape, size and place are as the prompt says."""
    return judge((picture / 255).astype(np.float32), scene_of(prompt)).right
