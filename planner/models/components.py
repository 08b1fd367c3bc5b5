"""The components of a pipeline beside its transformers that ranks can share or that quantize."""

from __future__ import annotations

from collections.abc import Mapping

from planner.models.facts import Architecture

VAE = "vae"

_COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "FluxPipeline": ("text_encoder", "text_encoder_2", "vae"),
    "Flux2Pipeline": ("text_encoder", "vae"),
    "Flux2KleinPipeline": ("text_encoder", "vae"),
    "QwenImagePipeline": ("text_encoder", "vae"),
    "QwenImageEditPipeline": ("text_encoder", "vae"),
    "QwenImageEditPlusPipeline": ("text_encoder", "vae"),
    "WanPipeline": ("text_encoder", "vae"),
    "WanImageToVideoPipeline": ("image_encoder", "text_encoder", "vae"),
    "ZImagePipeline": ("text_encoder", "vae"),
    "HunyuanVideoPipeline": ("text_encoder", "text_encoder_2", "vae"),
    "HunyuanVideo15Pipeline": ("text_encoder", "text_encoder_2", "vae"),
    "LTXPipeline": ("text_encoder", "vae"),
}


def component_names(architecture: Architecture) -> list[str]:
    """The transformers of a pipeline, then its other components."""
    targets = [target.name for target in architecture.targets]
    return [*targets, *components_of(architecture.pipeline_class)]


def components_of(pipeline_class: str) -> tuple[str, ...]:
    """Their attributes on a pipeline, sorted; none for a class that is not supported."""
    return _COMPONENTS.get(pipeline_class, ())
