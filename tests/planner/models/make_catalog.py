"""Writes the table of published checkpoints: diffusers' class defaults and where they differ.

    python -m tests.planner.models.make_catalog

What differs is noted with its source; nothing is downloaded.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers

CATALOG = Path(__file__).parents[3] / "planner/models/catalog.json"

_DEFAULTS = "defaults of diffusers' {}"
_CONVERSION = "diffusers' scripts/{}"

Overrides = dict[str, Any]


def _entry(
    pipeline: str,
    transformer: tuple[str, Overrides],
    vae: tuple[str, Overrides, tuple[str, ...]],
    source: str,
    *,
    index: Overrides | None = None,
    twice: bool = False,
    others: dict[str, Overrides] | None = None,
) -> dict[str, Any]:
    name, overrides = transformer
    config = {"_class_name": name} | _defaults(name) | overrides
    vae_name, vae_overrides, keys = vae
    vae_config = {k: v for k, v in _defaults(vae_name).items() if k in keys} | vae_overrides
    configs = {
        "model_index.json": {"_class_name": pipeline} | (index or {}),
        "transformer/config.json": config,
        **({"transformer_2/config.json": config} if twice else {}),
        "vae/config.json": {"_class_name": vae_name} | vae_config,
        **(others or {}),
    }
    return {"source": source, "configs": configs}


def _defaults(name: str) -> Overrides:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {key: p.default for key, p in parameters.items() if key != "self"}


_KL = ("AutoencoderKL", {"block_out_channels": [128, 256, 512, 512], "sample_size": 1024}, ())


def _flux(*, guidance_embeds: bool) -> dict[str, Any]:
    return _entry(
        "FluxPipeline",
        ("FluxTransformer2DModel", {"guidance_embeds": guidance_embeds}),
        _KL,
        _DEFAULTS.format("FluxTransformer2DModel"),
    )


def _flux2(pipeline: str, source: str, index: Overrides, **overrides: Any) -> dict[str, Any]:
    vae = ("AutoencoderKLFlux2", {}, ("block_out_channels", "sample_size"))
    return _entry(pipeline, ("Flux2Transformer2DModel", overrides), vae, source, index=index)


def _klein(*, distilled: bool, large: bool) -> dict[str, Any]:
    sizes = (
        {
            "num_layers": 8,
            "num_single_layers": 24,
            "num_attention_heads": 32,
            "joint_attention_dim": 12288,
        }
        if large
        else {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
        }
    )
    source = "sizes as InvokeAI's backend/flux2/model.py states them; else class defaults"
    index = {"is_distilled": distilled}
    return _flux2("Flux2KleinPipeline", source, index, guidance_embeds=False, **sizes)


def _qwen(pipeline: str) -> dict[str, Any]:
    return _entry(
        pipeline,
        ("QwenImageTransformer2DModel", {}),
        ("AutoencoderKLQwenImage", {}, ("temperal_downsample",)),
        _DEFAULTS.format("QwenImageTransformer2DModel"),
    )


def _wan(
    pipeline: str,
    overrides: Overrides,
    *,
    boundary: float | None = None,
    index: Overrides | None = None,
    vae: Overrides | None = None,
    shift: float = 3.0,
) -> dict[str, Any]:
    scheduler = {
        "_class_name": "UniPCMultistepScheduler",
        "flow_shift": shift,
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
    }
    keys = ("scale_factor_spatial", "scale_factor_temporal")
    return _entry(
        pipeline,
        ("WanTransformer3DModel", overrides),
        ("AutoencoderKLWan", vae or {}, keys),
        _CONVERSION.format("convert_wan_to_diffusers.py"),
        index=(index or {}) | ({} if boundary is None else {"boundary_ratio": boundary}),
        twice=boundary is not None,
        others={"scheduler/scheduler_config.json": scheduler},
    )


_WAN_SMALL = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_WAN_PICTURE = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
_WAN_5B = {
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "num_layers": 30,
    "in_channels": 48,
    "out_channels": 48,
}


def _hunyuan_15(target_size: int) -> dict[str, Any]:
    return _entry(
        "HunyuanVideo15Pipeline",
        ("HunyuanVideo15Transformer3DModel", {"target_size": target_size, "task_type": "t2v"}),
        (
            "AutoencoderKLHunyuanVideo15",
            {},
            ("spatial_compression_ratio", "temporal_compression_ratio"),
        ),
        _CONVERSION.format("convert_hunyuan_video1_5_to_diffusers.py"),
        others={
            "guider/guider_config.json": {
                "_class_name": "ClassifierFreeGuidance",
                "guidance_scale": 6.0,
            }
        },
    )


def entries() -> dict[str, dict[str, Any]]:
    """The table by published name."""
    return {
        "black-forest-labs/FLUX.1-dev": _flux(guidance_embeds=True),
        "black-forest-labs/FLUX.1-schnell": _flux(guidance_embeds=False),
        "black-forest-labs/FLUX.2-dev": _flux2(
            "Flux2Pipeline", _DEFAULTS.format("Flux2Transformer2DModel"), {}
        ),
        "black-forest-labs/FLUX.2-klein-4B": _klein(distilled=True, large=False),
        "black-forest-labs/FLUX.2-klein-9B": _klein(distilled=True, large=True),
        "black-forest-labs/FLUX.2-klein-base-4B": _klein(distilled=False, large=False),
        "black-forest-labs/FLUX.2-klein-base-9B": _klein(distilled=False, large=True),
        "Qwen/Qwen-Image": _qwen("QwenImagePipeline"),
        "Qwen/Qwen-Image-Edit": _qwen("QwenImageEditPipeline"),
        "Qwen/Qwen-Image-Edit-2509": _qwen("QwenImageEditPlusPipeline"),
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": _wan("WanPipeline", _WAN_SMALL),
        "Wan-AI/Wan2.1-T2V-14B-Diffusers": _wan("WanPipeline", {}),
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": _wan("WanImageToVideoPipeline", _WAN_PICTURE),
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": _wan("WanImageToVideoPipeline", _WAN_PICTURE),
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers": _wan("WanPipeline", {}, boundary=0.875),
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers": _wan(
            "WanImageToVideoPipeline", {"in_channels": 36}, boundary=0.9
        ),
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers": _wan(
            "WanPipeline",
            _WAN_5B,
            index={"expand_timesteps": True},
            vae={"scale_factor_spatial": 16},
            shift=5.0,
        ),
        "Tongyi-MAI/Z-Image-Turbo": _entry(
            "ZImagePipeline",
            ("ZImageTransformer2DModel", {}),
            _KL,
            _DEFAULTS.format("ZImageTransformer2DModel"),
        ),
        "hunyuanvideo-community/HunyuanVideo": _entry(
            "HunyuanVideoPipeline",
            ("HunyuanVideoTransformer3DModel", {}),
            (
                "AutoencoderKLHunyuanVideo",
                {},
                ("spatial_compression_ratio", "temporal_compression_ratio"),
            ),
            _DEFAULTS.format("HunyuanVideoTransformer3DModel"),
        ),
        "Lightricks/LTX-Video": _entry(
            "LTXPipeline",
            ("LTXVideoTransformer3DModel", {}),
            (
                "AutoencoderKLLTXVideo",
                {},
                ("patch_size", "patch_size_t", "spatio_temporal_scaling"),
            ),
            _DEFAULTS.format("LTXVideoTransformer3DModel"),
        ),
        "hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v": _hunyuan_15(640),
        "hunyuanvideo-community/HunyuanVideo-1.5-720p_t2v": _hunyuan_15(960),
    }


def text() -> str:
    """The table as JSON, one config a line."""
    models = []
    for name, entry in entries().items():
        configs = ",\n".join(
            f"      {json.dumps(path)}: {json.dumps(config, sort_keys=True)}"
            for path, config in entry["configs"].items()
        )
        source = json.dumps(entry["source"])
        body = f'    "source": {source},\n    "configs": {{\n{configs}\n    }}'
        models.append(f"  {json.dumps(name)}: {{\n{body}\n  }}")
    return "{\n" + ",\n".join(models) + "\n}\n"


if __name__ == "__main__":
    CATALOG.write_text(text())
