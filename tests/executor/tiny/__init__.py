"""Tiny seeded pipelines of every family, whole and real, made without a network.

Built here and saved like any checkpoint, a pipeline has tokenizers, encoders, transformers and a
VAE of the classes that it has on a hub; only the sizes are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

BUILDERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "FluxPipeline": ("flux", {}),
    "FluxControlNetPipeline": ("flux", {"controlnet": True}),
    "Flux2Pipeline": ("flux2", {}),
    "Flux2KleinPipeline": ("flux2", {"klein": True}),
    "QwenImagePipeline": ("qwen_image", {}),
    "QwenImageEditPipeline": ("qwen_image", {"task": "edit"}),
    "QwenImageEditPlusPipeline": ("qwen_image", {"task": "edit-plus"}),
    "WanPipeline": ("wan", {}),
    "WanImageToVideoPipeline": ("wan", {"from_picture": True}),
    "ZImagePipeline": ("z_image", {}),
    "HunyuanVideoPipeline": ("hunyuan_video", {}),
    "HunyuanVideo15Pipeline": ("hunyuan_video_15", {}),
    "LTXPipeline": ("ltx", {}),
}
"""The module that builds a pipeline class, and the options that make it this class."""


def build(pipeline_class: str, **options: Any) -> Any:
    """A pipeline in memory; further options as in `build` of its module."""
    module, fixed = BUILDERS[pipeline_class]
    return import_module(f"{__name__}.{module}").build(**fixed, **options)


def save(directory: Path, pipeline_class: str, **options: Any) -> Path:
    """Writes a pipeline as a checkpoint directory; options as in `build`."""
    build(pipeline_class, **options).save_pretrained(directory, safe_serialization=True)
    return directory
