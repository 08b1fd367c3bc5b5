"""FLUX.2, dev and klein."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    ModelDefaults,
    ModelFacts,
    Target,
)
from planner.models.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from planner.models.layers import (
    Attention,
    Layers,
    Linear,
    Rows,
    Shape,
    Split,
    embedding,
    feed_forward,
    joined,
    projections,
)
from planner.models.lengths import SequenceRule
from planner.models.reading import Configs, channels, count, flag, levels, ratio


def flux2(configs: Configs) -> ModelFacts:
    """FLUX.2-dev: double and single blocks cached apart; guidance is embedded."""
    embedded = flag(configs["transformer/config.json"], "guidance_embeds", True)
    guidance = Guidance(GuidanceKind.EMBEDDED, 4.0) if embedded else NO_GUIDANCE
    return _facts(configs, "Flux2Pipeline", guidance)


def flux2_klein(configs: Configs) -> ModelFacts:
    """FLUX.2-klein: the distilled ones run without guidance, the others twice a step."""
    distilled = flag(configs.get("model_index.json", {}), "is_distilled", False)
    guidance = NO_GUIDANCE if distilled else Guidance(GuidanceKind.SEPARATE, 4.0)
    return _facts(configs, "Flux2KleinPipeline", guidance)


def _facts(configs: Configs, pipeline_class: str, guidance: Guidance) -> ModelFacts:
    transformer = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    multiple = 2 * 2 ** (levels(vae, "block_out_channels", 4) - 1)
    size = 64 * multiple
    target = Target(
        name="transformer",
        transformer_class="Flux2Transformer2DModel",
        block_lists=(
            BlockList("transformer_blocks", count(transformer, "num_layers", 8, least=0)),
            BlockList(
                "single_transformer_blocks", count(transformer, "num_single_layers", 48, least=0)
            ),
        ),
        num_attention_heads=count(transformer, "num_attention_heads", 48),
        attention_head_dim=channels(transformer, "attention_head_dim", 128),
    )
    return ModelFacts(
        architecture=Architecture("flux2", pipeline_class, (target,)),
        groups=(
            BlockGroup(target.name, ("transformer_blocks",)),
            # The single blocks run on one sequence of both.
            BlockGroup(target.name, ("single_transformer_blocks",), (Rows.JOINT,)),
        ),
        defaults=ModelDefaults(50, size, size, multiple),
        guidance=guidance,
        sequence=SequenceRule(patch=multiple, prompt=512),
        shapes=(_shape(target, transformer),),
    )


def _shape(target: Target, config: Mapping[str, Any]) -> Shape:
    width, head = target.hidden_size, target.attention_head_dim
    inner = int(width * ratio(config, "mlp_ratio", 3.0))
    steps = channels(config, "timestep_guidance_channels", 256)
    latents = channels(config, "in_channels", 128)
    out = latents if config.get("out_channels") is None else channels(config, "out_channels", 128)
    patch = count(config, "patch_size", 1)
    text = channels(config, "joint_attention_dim", 15360)
    return Shape(
        target.name,
        blocks=(_double_block(width, head, inner), _single_block(width, head, inner)),
        rest=Layers(
            joined(
                embedding("time_guidance_embed.timestep_embedder", steps, width, bias=False),
                embedding("time_guidance_embed.guidance_embedder", steps, width, bias=False)
                if flag(config, "guidance_embeds", True)
                else (),
                _vector("double_stream_modulation_img.linear", width, 6),
                _vector("double_stream_modulation_txt.linear", width, 6),
                _vector("single_stream_modulation.linear", width, 3),
                Linear("x_embedder", Rows.IMAGE, latents, width, bias=False),
                Linear("context_embedder", Rows.TEXT, text, width, bias=False),
                _vector("norm_out.linear", width, 2),
                Linear("proj_out", Rows.IMAGE, width, patch * patch * out, bias=False),
            )
        ),
    )


def _vector(name: str, width: int, times: int) -> Linear:
    return Linear(name, Rows.VECTOR, width, times * width, bias=False)


def _double_block(width: int, head: int, inner: int) -> Layers:
    added = ("add_q_proj", "add_k_proj", "add_v_proj")
    return Layers(
        joined(
            projections("attn", ("to_q", "to_k", "to_v"), Rows.IMAGE, width, width, bias=False),
            projections("attn", added, Rows.TEXT, width, width, bias=False),
            Linear("attn.to_out.0", Rows.IMAGE, width, width, False, Split.ROWS),
            Linear("attn.to_add_out", Rows.TEXT, width, width, False, Split.ROWS),
            _gated("ff", Rows.IMAGE, width, inner),
            _gated("ff_context", Rows.TEXT, width, inner),
        ),
        (Attention(Rows.JOINT, Rows.JOINT, width),),
        vectors=4 * head,
    )


def _single_block(width: int, head: int, inner: int) -> Layers:
    up, down = "attn.to_qkv_mlp_proj", "attn.to_out"
    return Layers(
        (
            Linear(up, Rows.JOINT, width, 3 * width + 2 * inner, False, Split.COLUMNS),
            Linear(down, Rows.JOINT, width + inner, width, False, Split.ROWS),
        ),
        (Attention(Rows.JOINT, Rows.JOINT, width),),
        vectors=2 * head,
    )


def _gated(name: str, rows: Rows, width: int, inner: int) -> tuple[Linear, ...]:
    return feed_forward(
        f"{name}.linear_in", f"{name}.linear_out", rows, width, inner, bias=False, gated=True
    )
