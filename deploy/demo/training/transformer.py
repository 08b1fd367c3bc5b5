"""The transformer, and its flow-matching loss."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.examples import Examples
from training.text_encoders import WIDTH
from training.tokenizers import TEXT_LENGTH

_LATENT_SIDE = 16
_CAPTION_DROPOUT = 0.06
_NOISE_SHIFT, _NOISE_SPREAD = 0.3, 1.2


def new_transformer() -> FluxTransformer2DModel:
    """An untrained transformer of 2 double and 12 single blocks, 4.3 million parameters."""
    model = FluxTransformer2DModel(
        in_channels=32,
        num_layers=2,
        num_single_layers=12,
        num_attention_heads=4,
        attention_head_dim=32,
        axes_dims_rope=(8, 12, 12),
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=False,
    )
    for name, parameter in model.named_parameters():
        if name.startswith("proj_out") or ("norm" in name and ".linear." in name):
            torch.nn.init.zeros_(parameter)  # every block begins as the identity
    return model


def flow_loss(
    model: FluxTransformer2DModel, examples: Examples, batch: int, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the predicted velocity for `batch` random examples.

    Noise levels are logit-normal and stratified: one from each of `batch` equal shares.
    """
    chosen = torch.randint(len(examples.latents), (batch,), generator=generator)
    dropped = torch.rand(batch, generator=generator) < _CAPTION_DROPOUT
    latents, sequence, pooled = examples.batch(chosen, dropped)
    shares = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    shares = shares.clamp(1e-3, 1 - 1e-3)
    sigmas = torch.sigmoid(_NOISE_SHIFT + _NOISE_SPREAD * torch.special.ndtri(shares))
    noise = torch.randn(latents.shape, generator=generator)
    level = sigmas[:, None, None]
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        velocity = model(
            hidden_states=(1 - level) * latents + level * noise,
            encoder_hidden_states=sequence,
            pooled_projections=pooled,
            timestep=sigmas,
            img_ids=_IMAGE_IDS,
            txt_ids=_TEXT_IDS,
            return_dict=False,
        )[0]
    return functional.mse_loss(velocity.float(), noise - latents)


_IMAGE_IDS: Tensor = FluxPipeline._prepare_latent_image_ids(
    1, _LATENT_SIDE // 2, _LATENT_SIDE // 2, torch.device("cpu"), torch.float32
)
_TEXT_IDS = torch.zeros(TEXT_LENGTH, 3)
