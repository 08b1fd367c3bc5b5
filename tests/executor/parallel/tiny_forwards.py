"""Of every family a tiny transformer that four ranks can share, and a forward of two rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from diffusers import (
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    QwenImageTransformer2DModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)
from torch import Tensor, nn

from planner.models.facts import ModelFacts
from planner.models.families import FAMILIES
from tests.executor.tiny.weights import drawn

BATCH = 2
HEADS = {"num_attention_heads": 4, "attention_head_dim": 16}


@dataclass(frozen=True)
class TinyForward:
    """``tokens``: how many the blocks see, by the planner's names for them."""

    pipeline_class: str
    transformer_class: Callable[..., Any]
    config: Mapping[str, Any]
    tokens: Mapping[str, int]
    make_inputs: Callable[[torch.Generator], dict[str, Any]] = field(repr=False)

    def build(self, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
        """The same weights whenever it is asked, some of the config replaced."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return drawn(self.transformer_class(**{**self.config, **config})).to(dtype)

    @cached_property
    def facts(self) -> ModelFacts:
        config = json.loads(self.build().to_json_string())
        return FAMILIES[self.pipeline_class]({"transformer/config.json": config})

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Tensor:
        dtype = next(model.parameters()).dtype
        inputs = self.make_inputs(torch.Generator().manual_seed(1))
        output = model(**{name: _cast(each, dtype) for name, each in inputs.items()})[0]
        return torch.stack(output) if isinstance(output, list) else output


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list):
        return [_cast(each, dtype) for each in value]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    # Of inputs too, what is computed in fp32 must be what is computed in bf16.
    return value.bfloat16().to(dtype)


def _time(scale: float = 1.0) -> Tensor:
    """Whose thousandfold, like that of the guidance, bf16 holds exactly."""
    return torch.tensor([0.5, 0.25]) * scale


def _flux(random: torch.Generator, *, axes: int = 3, pooled: bool = True) -> dict[str, Any]:
    image, words = torch.zeros(24, axes), torch.zeros(10, axes)
    image[:, 1], image[:, 2] = torch.arange(24) // 6, torch.arange(24) % 6
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(BATCH, 24, 16, generator=random),
        "encoder_hidden_states": torch.randn(BATCH, 10, 32, generator=random),
        "timestep": _time(),
        "guidance": torch.tensor([4.0, 4.0]),
        "img_ids": image,
        "txt_ids": words,
        "return_dict": False,
    }
    if pooled:
        inputs["pooled_projections"] = torch.randn(BATCH, 32, generator=random)
    return inputs


def _flux2(random: torch.Generator) -> dict[str, Any]:
    return _flux(random, axes=4, pooled=False)


def _qwen_image(random: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, 24, 16, generator=random),
        "encoder_hidden_states": torch.randn(BATCH, 10, 32, generator=random),
        "encoder_hidden_states_mask": torch.arange(10) < torch.tensor([[10], [7]]),
        "timestep": _time(),
        "img_shapes": [[(1, 4, 6)]] * BATCH,
        "return_dict": False,
    }


def _film(random: torch.Generator, channels: int) -> Tensor:
    return torch.randn(BATCH, channels, 2, 6, 4, generator=random)


def _wan(random: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": _film(random, 4),
        "timestep": _time(1000),
        "encoder_hidden_states": torch.randn(BATCH, 512, 32, generator=random),
        "return_dict": False,
    }


def _wan_from_picture(random: torch.Generator) -> dict[str, Any]:
    picture = torch.randn(BATCH, 17, 24, generator=random)
    return _wan(random) | {"encoder_hidden_states_image": picture}


def _z_image(random: torch.Generator) -> dict[str, Any]:
    return {
        "x": list(torch.randn(BATCH, 4, 1, 16, 8, generator=random)),
        "t": _time(),
        "cap_feats": list(torch.randn(BATCH, 10, 32, generator=random)),
        "return_dict": False,
    }


def _hunyuan_video(random: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": _film(random, 4),
        "timestep": _time(1000).long(),
        "encoder_hidden_states": torch.randn(BATCH, 10, 32, generator=random),
        "encoder_attention_mask": (torch.arange(10) < torch.tensor([[10], [7]])).long(),
        "pooled_projections": torch.randn(BATCH, 32, generator=random),
        "guidance": torch.tensor([4000.0, 4000.0]),
        "return_dict": False,
    }


def _hunyuan_video_15(random: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, 9, 2, 3, 4, generator=random),
        "timestep": _time(1000),
        "encoder_hidden_states": torch.randn(BATCH, 10, 32, generator=random),
        "encoder_attention_mask": (torch.arange(10) < torch.tensor([[10], [7]])).long(),
        "encoder_hidden_states_2": torch.randn(BATCH, 6, 24, generator=random),
        "encoder_attention_mask_2": (torch.arange(6) < torch.tensor([[3], [6]])).long(),
        "image_embeds": torch.zeros(BATCH, 5, 20),
        "return_dict": False,
    }


def _ltx(random: torch.Generator) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(BATCH, 24, 8, generator=random),
        "encoder_hidden_states": torch.randn(BATCH, 10, 32, generator=random),
        "encoder_attention_mask": (torch.arange(10) < torch.tensor([[10], [7]])).long(),
        "timestep": _time(1000),
        "num_frames": 2,
        "height": 3,
        "width": 4,
        "return_dict": False,
    }


_WAN: dict[str, Any] = {
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 96,
    "rope_max_seq_len": 64,
}

FORWARDS = {
    "flux": TinyForward(
        "FluxPipeline",
        FluxTransformer2DModel,
        HEADS
        | {
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 3,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 6, 6),
        },
        {"image": 24, "text": 10},
        _flux,
    ),
    "flux2": TinyForward(
        "Flux2Pipeline",
        Flux2Transformer2DModel,
        HEADS
        | {
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 3,
            "joint_attention_dim": 32,
            "timestep_guidance_channels": 32,
            "mlp_ratio": 2.0,
            "axes_dims_rope": (4, 4, 4, 4),
        },
        {"image": 24, "text": 10},
        _flux2,
    ),
    "qwen_image": TinyForward(
        "QwenImagePipeline",
        QwenImageTransformer2DModel,
        HEADS
        | {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "joint_attention_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
        {"image": 24, "text": 10},
        _qwen_image,
    ),
    "wan": TinyForward(
        "WanPipeline",
        WanTransformer3DModel,
        _WAN,
        {"image": 12, "text": 512, "prompt": 512},
        _wan,
    ),
    "wan_from_picture": TinyForward(
        "WanImageToVideoPipeline",
        WanTransformer3DModel,
        _WAN | {"image_dim": 24, "added_kv_proj_dim": 48},
        {"image": 12, "text": 512, "prompt": 512, "vision": 17},
        _wan_from_picture,
    ),
    "z_image": TinyForward(
        "ZImagePipeline",
        ZImageTransformer2DModel,
        {
            "in_channels": 4,
            "dim": 48,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 4,
            "n_kv_heads": 4,
            "cap_feat_dim": 32,
            "axes_dims": [4, 4, 4],
            "axes_lens": [64, 64, 64],
        },
        {"image": 32, "text": 32, "prompt": 32},
        _z_image,
    ),
    "hunyuan_video": TinyForward(
        "HunyuanVideoPipeline",
        HunyuanVideoTransformer3DModel,
        HEADS
        | {
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_single_layers": 2,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 32,
            "pooled_projection_dim": 32,
            "rope_axes_dim": (4, 6, 6),
        },
        {"image": 12, "text": 10, "prompt": 10},
        _hunyuan_video,
    ),
    "hunyuan_video_15": TinyForward(
        "HunyuanVideo15Pipeline",
        HunyuanVideo15Transformer3DModel,
        HEADS
        | {
            "in_channels": 9,
            "out_channels": 4,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 32,
            "text_embed_2_dim": 24,
            "image_embed_dim": 20,
            "rope_axes_dim": (4, 6, 6),
            "target_size": 640,
            "task_type": "t2v",
        },
        {"image": 24, "text": 21, "prompt": 10, "glyph": 6, "vision": 5},
        _hunyuan_video_15,
    ),
    "ltx": TinyForward(
        "LTXPipeline",
        LTXVideoTransformer3DModel,
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_layers": 2,
            "num_attention_heads": 4,
            "attention_head_dim": 12,
            "cross_attention_dim": 48,
            "caption_channels": 32,
        },
        {"image": 24, "text": 10, "prompt": 10},
        _ltx,
    ),
}
