"""Trains the autoencoder between pictures and latents."""

from __future__ import annotations

import logging
import math
import random
import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from training.drawing import draw
from training.scenes import PICTURE_SIZE, Scene

logger = logging.getLogger(__name__)

_CROP = 32
_BATCH = 32
_KL_WEIGHT = 3e-4


def pictures(scenes: list[Scene], seed: int) -> Tensor:
    """Draws scenes: (scenes, 3, 64, 64) float32, -1 to 1."""
    rng = random.Random(seed)
    drawn = np.stack([draw(scene, rng) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous() * 2 - 1


def new_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder: four pixels a latent each way, eight latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=1,
        sample_size=PICTURE_SIZE,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def train_autoencoder(scenes: list[Scene], steps: int, seed: int) -> AutoencoderKL:
    """Trains an autoencoder on crops of pictures of `scenes`; its latents have unit scale."""
    torch.manual_seed(seed)
    model = new_autoencoder()
    examples = pictures(scenes, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    began = time.monotonic()
    for step in range(steps):
        batch = _crops(examples)
        posterior = model.encode(batch).latent_dist
        restored = model.decode(posterior.sample()).sample
        pixels = functional.l1_loss(restored, batch) + functional.mse_loss(restored, batch)
        loss = pixels + _KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps - 1:
            elapsed = time.monotonic() - began
            logger.info("autoencoder step %d loss %.4f %.0f s", step, loss.item(), elapsed)
    model.eval()
    with torch.no_grad():
        _set_scale(model, examples[:512])
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, batch: Tensor) -> Tensor:
    """Latents at unit scale of pictures: (n, 3, 64, 64) to (n, 8, 16, 16), both float32."""
    latents = torch.cat([model.encode(part).latent_dist.mean for part in batch.split(64)])
    scaled: Tensor = (latents - model.config.shift_factor) * model.config.scaling_factor
    return scaled


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderKL, batch: Tensor) -> float:
    """Peak signal to noise of pictures that went through the autoencoder, mean in dB."""
    restored = torch.cat(
        [model.decode(model.encode(part).latent_dist.mean).sample for part in batch.split(64)]
    )
    error = ((restored.clamp(-1, 1) - batch) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * torch.log10(error)).mean())


def _rate(progress: float) -> float:
    warm = min(1.0, progress / 0.02 + 0.01)
    return warm * 0.5 * (1 + math.cos(math.pi * progress))


def _crops(examples: Tensor) -> Tensor:
    """Square crops of random pictures: convolutions learn as much from a crop, for a quarter."""
    chosen = torch.randint(len(examples), (_BATCH,))
    tops, lefts = torch.randint(PICTURE_SIZE - _CROP + 1, (2, _BATCH)).tolist()
    crops = [
        examples[index, :, top : top + _CROP, left : left + _CROP]
        for index, top, left in zip(chosen.tolist(), tops, lefts, strict=True)
    ]
    return torch.stack(crops)


def _set_scale(model: AutoencoderKL, examples: Tensor) -> None:
    """Folds the deviation of each latent channel into the convolutions on both sides of it."""
    latents = encode(model, examples)
    deviation = latents.std(dim=(0, 2, 3))
    channels = len(deviation)
    model.encoder.conv_out.weight[:channels] /= deviation[:, None, None, None]
    model.encoder.conv_out.bias[:channels] /= deviation
    model.encoder.conv_out.bias[channels:] -= 2 * deviation.log()
    model.decoder.conv_in.weight *= deviation[None, :, None, None]
    model.register_to_config(shift_factor=float((latents / deviation[:, None, None]).mean()))
