"""A FLUX pipeline of some size on some device, whose weights are noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline

from planner.models.facts import ModelFacts
from tests.bench.engine.models import noise
from tests.executor.tiny import clip, t5

_CLIP_TOKENS = 77
_PIXELS = 16
"""To a token, along a side: the VAE halves three times, and four latents make one token."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What is measured. ``side`` of a picture in pixels, ``channels`` of the VAE's four levels.

    ``transformer``: what its config has beyond FLUX.1-dev's. ``rounds`` of steps, ``runs``: rounds
    of whole runs.
    """

    title: str
    device: torch.device
    dtype: torch.dtype
    facts: ModelFacts
    side: int
    text_tokens: int
    channels: tuple[int, int, int, int]
    rounds: int
    runs: int
    transformer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_tokens(self) -> int:
        return (self.side // _PIXELS) ** 2

    def build(self) -> Any:
        """A transformer with weights of its own."""
        return noise(self.device, self.dtype, **self.transformer)

    def pipeline(self, transformer: Any) -> Any:
        """As FLUX.1-dev's, without encoders."""
        encoders = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        vae = self._vae().to(self.device)
        pipeline = FluxPipeline(
            scheduler=_scheduler(), vae=vae, transformer=transformer, **encoders
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def checkpoint(self) -> Any:
        """A pipeline like FLUX.1-dev's, whose encoders have one layer."""
        transformer = self.build()
        pooled, width = (
            transformer.config[key] for key in ("pooled_projection_dim", "joint_attention_dim")
        )
        return FluxPipeline(
            scheduler=_scheduler(),
            vae=self._vae(),
            text_encoder=clip.text_encoder(pooled, _CLIP_TOKENS).to(self.dtype),
            tokenizer=clip.tokenizer(_CLIP_TOKENS),
            text_encoder_2=t5.encoder(width).to(self.dtype),
            tokenizer_2=t5.tokenizer(self.text_tokens),
            transformer=transformer,
        )

    def _vae(self) -> Any:
        vae = AutoencoderKL(
            block_out_channels=self.channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        return vae.to(self.dtype)


def _scheduler() -> Any:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
