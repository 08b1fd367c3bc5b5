"""Published checkpoints that are known by name: the parts of their configs that facts need."""

from __future__ import annotations

from planner.models.families import Configs

_FLUX_VAE = {"block_out_channels": [128, 256, 512, 512], "sample_size": 1024}


def _flux(*, guidance_embeds: bool) -> Configs:
    return {
        "model_index.json": {"_class_name": "FluxPipeline"},
        "transformer/config.json": {
            "num_layers": 19,
            "num_single_layers": 38,
            "num_attention_heads": 24,
            "attention_head_dim": 128,
            "guidance_embeds": guidance_embeds,
        },
        "vae/config.json": _FLUX_VAE,
    }


NAMED: dict[str, Configs] = {
    "black-forest-labs/FLUX.1-dev": _flux(guidance_embeds=True),
    "black-forest-labs/FLUX.1-schnell": _flux(guidance_embeds=False),
}
