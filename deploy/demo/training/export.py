"""Puts the trained parts together as a pipeline that diffusers loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from safetensors.torch import load_file, save_file

from training.text_encoders import TextEncoders

_TRACES = ("_name_or_path", "is_local", "local_files_only")


def new_pipeline(
    transformer: FluxTransformer2DModel, autoencoder: AutoencoderKL, encoders: TextEncoders
) -> FluxPipeline:
    """The pipeline in memory; FLUX.1-dev's scheduler, fitted to 64 latents a picture."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=64, max_image_seq_len=1024
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=autoencoder,
        text_encoder=encoders.clip,
        tokenizer=encoders.clip_tokenizer,
        text_encoder_2=encoders.t5,
        tokenizer_2=encoders.t5_tokenizer,
        transformer=transformer,
    )


def save_pipeline(pipeline: FluxPipeline, folder: Path) -> None:
    """Writes the pipeline with the transformer in bfloat16, and nothing about this machine."""
    pipeline.save_pretrained(folder)
    for weights in (folder / "transformer").glob("*.safetensors"):
        halved = {name: value.to(torch.bfloat16) for name, value in load_file(weights).items()}
        save_file(halved, weights, metadata={"format": "pt"})
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        for trace in _TRACES:
            content.pop(trace, None)
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
