"""The picture VAE of FLUX.1, which Z-Image uses too."""

from __future__ import annotations

from diffusers import AutoencoderKL

LATENT_CHANNELS = 4


def autoencoder() -> AutoencoderKL:
    """A latent pixel is 2 image pixels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=32,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    ).eval()
