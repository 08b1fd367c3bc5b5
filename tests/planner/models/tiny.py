"""A tiny transformer of every family, with the forward that its pipeline makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from planner.models.facts import ModelFacts
from planner.models.families import FAMILIES
from planner.models.layers import TokenCounts

TEXT = 12


@dataclass(frozen=True)
class Tiny:
    """``tokens`` are those of the inputs that ``forward`` makes, for a batch of one."""

    pipeline: str
    transformer: str
    config: dict[str, Any]
    tokens: TokenCounts
    forward: Callable[[nn.Module], object]
    index: dict[str, Any]

    @property
    def facts(self) -> ModelFacts:
        index = {"_class_name": self.pipeline} | self.index
        return FAMILIES[self.pipeline](
            {"model_index.json": index, "transformer/config.json": self.config}
        )

    def build(self) -> nn.Module:
        model: nn.Module = getattr(diffusers, self.transformer)(**self.config)
        return model.eval()


def _ids(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def _flux(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 64, 16),
        encoder_hidden_states=torch.randn(1, TEXT, 32),
        pooled_projections=torch.randn(1, 24),
        timestep=torch.ones(1),
        img_ids=_ids(64, 3),
        txt_ids=_ids(TEXT, 3),
        guidance=torch.ones(1) if model.config.guidance_embeds else None,
    )


def _flux2(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 64, 16),
        encoder_hidden_states=torch.randn(1, TEXT, 32),
        timestep=torch.ones(1),
        img_ids=_ids(64, 4),
        txt_ids=_ids(TEXT, 4),
        guidance=torch.ones(1) if model.config.guidance_embeds else None,
    )


def _qwen(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 16, 16),
        encoder_hidden_states=torch.randn(1, TEXT, 32),
        encoder_hidden_states_mask=torch.ones(1, TEXT, dtype=torch.bool),
        timestep=torch.ones(1),
        img_shapes=[[(1, 4, 4)]],
    )


def _wan(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, model.config.in_channels, 3, 8, 8),
        encoder_hidden_states=torch.randn(1, 512, 32),
        timestep=torch.ones(1),
    )


def _wan_expanded(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 4, 3, 8, 8),
        encoder_hidden_states=torch.randn(1, 512, 32),
        timestep=torch.ones(1, 48),
    )


def _wan_picture(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, model.config.in_channels, 3, 8, 8),
        encoder_hidden_states=torch.randn(1, 512, 32),
        encoder_hidden_states_image=torch.randn(1, 257, 20),
        timestep=torch.ones(1),
    )


def _z_image(model: nn.Module) -> object:
    return model([torch.randn(4, 1, 12, 12)], torch.ones(1), [torch.randn(TEXT, 32)])


def _hunyuan(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 4, 2, 8, 8),
        timestep=torch.ones(1),
        encoder_hidden_states=torch.randn(1, TEXT, 32),
        encoder_attention_mask=torch.ones(1, TEXT),
        pooled_projections=torch.randn(1, 24),
        guidance=torch.ones(1) if model.config.guidance_embeds else None,
    )


def _hunyuan_15(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 9, 2, 4, 4),
        timestep=torch.ones(1),
        encoder_hidden_states=torch.randn(1, TEXT, 32),
        encoder_attention_mask=torch.ones(1, TEXT),
        encoder_hidden_states_2=torch.randn(1, 5, 24),
        encoder_attention_mask_2=torch.ones(1, 5),
        image_embeds=torch.zeros(1, 7, 20),
    )


def _ltx(model: nn.Module) -> object:
    return model(
        hidden_states=torch.randn(1, 48, 8),
        encoder_hidden_states=torch.randn(1, TEXT, 32),
        timestep=torch.ones(1),
        encoder_attention_mask=torch.ones(1, TEXT),
        num_frames=3,
        height=4,
        width=4,
    )


_HEADS = {"num_attention_heads": 4, "attention_head_dim": 16}
_FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 24,
    "axes_dims_rope": [4, 6, 6],
} | _HEADS
_FLUX2 = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "joint_attention_dim": 32,
    "timestep_guidance_channels": 48,
    "mlp_ratio": 2.0,
    "axes_dims_rope": [4, 4, 4, 4],
} | _HEADS
_WAN = {
    "num_attention_heads": 4,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 80,
    "num_layers": 3,
    "rope_max_seq_len": 32,
}
_HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_single_layers": 3,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 32,
    "pooled_projection_dim": 24,
    "rope_axes_dim": [4, 6, 6],
} | _HEADS
_WAN_TOKENS = TokenCounts(image=48, text=512, prompt=512)

TINY = {
    "flux": Tiny(
        "FluxPipeline",
        "FluxTransformer2DModel",
        _FLUX | {"guidance_embeds": True},
        TokenCounts(64, TEXT, TEXT),
        _flux,
        {},
    ),
    "flux-schnell": Tiny(
        "FluxPipeline", "FluxTransformer2DModel", _FLUX, TokenCounts(64, TEXT, TEXT), _flux, {}
    ),
    "flux2": Tiny(
        "Flux2Pipeline", "Flux2Transformer2DModel", _FLUX2, TokenCounts(64, TEXT, TEXT), _flux2, {}
    ),
    "flux2-klein": Tiny(
        "Flux2KleinPipeline",
        "Flux2Transformer2DModel",
        _FLUX2 | {"guidance_embeds": False},
        TokenCounts(64, TEXT, TEXT),
        _flux2,
        {"is_distilled": True},
    ),
    "qwen": Tiny(
        "QwenImagePipeline",
        "QwenImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 3,
            "joint_attention_dim": 32,
            "axes_dims_rope": [4, 6, 6],
        }
        | _HEADS,
        TokenCounts(16, TEXT, TEXT),
        _qwen,
        {},
    ),
    "wan": Tiny("WanPipeline", "WanTransformer3DModel", _WAN, _WAN_TOKENS, _wan, {}),
    "wan-plain-norms": Tiny(
        "WanPipeline",
        "WanTransformer3DModel",
        _WAN | {"cross_attn_norm": False},
        _WAN_TOKENS,
        _wan,
        {},
    ),
    "wan-5b": Tiny(
        "WanPipeline",
        "WanTransformer3DModel",
        _WAN,
        _WAN_TOKENS,
        _wan_expanded,
        {"expand_timesteps": True},
    ),
    "wan-i2v": Tiny(
        "WanImageToVideoPipeline",
        "WanTransformer3DModel",
        _WAN | {"in_channels": 9, "image_dim": 20, "added_kv_proj_dim": 48},
        TokenCounts(48, 512, 512, vision=257),
        _wan_picture,
        {},
    ),
    "z-image": Tiny(
        "ZImagePipeline",
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 64,
            "n_layers": 3,
            "n_refiner_layers": 2,
            "n_heads": 4,
            "n_kv_heads": 4,
            "cap_feat_dim": 32,
            "axes_dims": [4, 6, 6],
            "axes_lens": [64, 64, 64],
        },
        # 36 latent tokens and 12 of the prompt, each padded to a multiple of 32.
        TokenCounts(64, 32, 32),
        _z_image,
        {},
    ),
    "hunyuan": Tiny(
        "HunyuanVideoPipeline",
        "HunyuanVideoTransformer3DModel",
        _HUNYUAN,
        TokenCounts(32, TEXT, TEXT),
        _hunyuan,
        {},
    ),
    "hunyuan-1.5": Tiny(
        "HunyuanVideo15Pipeline",
        "HunyuanVideo15Transformer3DModel",
        {
            "in_channels": 9,
            "out_channels": 4,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 32,
            "text_embed_2_dim": 24,
            "image_embed_dim": 20,
            "rope_axes_dim": [4, 6, 6],
        }
        | _HEADS,
        TokenCounts(32, TEXT + 5 + 7, TEXT, glyph=5, vision=7),
        _hunyuan_15,
        {},
    ),
    "ltx": Tiny(
        "LTXPipeline",
        "LTXVideoTransformer3DModel",
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_layers": 3,
            "cross_attention_dim": 48,
            "caption_channels": 32,
            "num_attention_heads": 4,
            "attention_head_dim": 12,
        },
        TokenCounts(48, TEXT, TEXT),
        _ltx,
        {},
    ),
}
