"""Model families: how the configs of a checkpoint become facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planner.models.facts import ModelFacts
from planner.models.families.flux1 import flux
from planner.models.families.flux2 import flux2, flux2_klein
from planner.models.families.hunyuan_video import hunyuan_video, hunyuan_video_15
from planner.models.families.ltx import ltx
from planner.models.families.qwen_image import (
    qwen_image,
    qwen_image_edit,
    qwen_image_edit_plus,
)
from planner.models.families.wan import wan, wan_image_to_video
from planner.models.families.z_image import z_image
from planner.models.reading import Configs

__all__ = ["FAMILIES", "Configs", "flux"]

FAMILIES: Mapping[str, Callable[[Configs], ModelFacts]] = {
    "FluxPipeline": flux,
    "Flux2Pipeline": flux2,
    "Flux2KleinPipeline": flux2_klein,
    "QwenImagePipeline": qwen_image,
    "QwenImageEditPipeline": qwen_image_edit,
    "QwenImageEditPlusPipeline": qwen_image_edit_plus,
    "WanPipeline": wan,
    "WanImageToVideoPipeline": wan_image_to_video,
    "ZImagePipeline": z_image,
    "HunyuanVideoPipeline": hunyuan_video,
    "HunyuanVideo15Pipeline": hunyuan_video_15,
    "LTXPipeline": ltx,
}
"""Facts by ``_class_name`` of a checkpoint's ``model_index.json``."""
