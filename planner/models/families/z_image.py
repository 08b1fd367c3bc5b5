"""Z-Image."""

from __future__ import annotations

from dataclasses import replace

from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    ModelDefaults,
    ModelFacts,
    Target,
)
from planner.models.guidance import Guidance, GuidanceKind, NegativePrompt
from planner.models.layers import (
    Attention,
    Layers,
    Linear,
    Rows,
    Shape,
    Split,
    joined,
    projections,
)
from planner.models.lengths import SequenceRule
from planner.models.reading import Configs, channels, count, levels

_CONDITION = 256
"""Most channels of the conditioning vector."""


def z_image(configs: Configs) -> ModelFacts:
    """Image and text as one sequence through one list; refiners come before it, uncached.

    Guidance runs as one forward of twice the batch, for any scale above 0. Prompts are not padded
    beyond the next multiple of 32 tokens; the longest is assumed.
    """
    config = configs["transformer/config.json"]
    vae = configs.get("vae/config.json", {})
    multiple = 2 * 2 ** (levels(vae, "block_out_channels", 4) - 1)
    patches = (config.get("all_patch_size", [2]), config.get("all_f_patch_size", [1]))
    if patches != ([2], [1]) or config.get("siglip_feat_dim") is not None:
        raise ValueError("patches other than 2 x 2 and image features are not supported")
    width, heads = channels(config, "dim", 3840), count(config, "n_heads", 30)
    if width % heads:
        raise ValueError(f"dim {width} does not divide by n_heads {heads}")
    target = Target(
        name="transformer",
        transformer_class="ZImageTransformer2DModel",
        block_lists=(BlockList("layers", count(config, "n_layers", 30)),),
        num_attention_heads=heads,
        attention_head_dim=width // heads,
    )
    return ModelFacts(
        architecture=Architecture("z_image", "ZImagePipeline", (target,)),
        groups=(BlockGroup(target.name, ("layers",), (Rows.JOINT,)),),
        defaults=ModelDefaults(50, 1024, 1024, multiple),
        guidance=Guidance(
            GuidanceKind.BATCHED, 5.0, threshold=0.0, negative_prompt=NegativePrompt.OPTIONAL
        ),
        sequence=SequenceRule(patch=multiple, prompt=512, multiple=32),
        shapes=(
            _shape(
                target,
                latents=channels(config, "in_channels", 16),
                text=channels(config, "cap_feat_dim", 2560),
                refiners=count(config, "n_refiner_layers", 2, least=0, most=64),
                normed=config.get("qk_norm", True) is True,
            ),
        ),
    )


def _shape(target: Target, *, latents: int, text: int, refiners: int, normed: bool) -> Shape:
    width = target.hidden_size
    condition = min(width, _CONDITION)
    norms = 2 * target.attention_head_dim if normed else 0
    refiner_blocks = [
        _block(width, norms, rows, prefix=f"{name}.{i}.", modulated=rows is Rows.IMAGE)
        for name, rows in (("noise_refiner", Rows.IMAGE), ("context_refiner", Rows.PROMPT))
        for i in range(refiners)
    ]
    last = "all_final_layer.2-1"
    rest = Layers(
        joined(
            Linear("all_x_embedder.2-1", Rows.IMAGE, 4 * latents, width),
            Linear(f"{last}.linear", Rows.JOINT, width, 4 * latents),
            Linear(f"{last}.adaLN_modulation.1", Rows.VECTOR, condition, width),
            # The refiners are whole on every rank.
            *(replace(linear, split=Split.NONE) for b in refiner_blocks for linear in b.linears),
            (
                Linear("t_embedder.mlp.0", Rows.VECTOR, 256, 1024),
                Linear("t_embedder.mlp.2", Rows.VECTOR, 1024, condition),
            ),
            Linear("cap_embedder.1", Rows.PROMPT, text, width),
        ),
        tuple(attention for block in refiner_blocks for attention in block.attentions),
        vectors=sum(block.vectors for block in refiner_blocks) + text + 2 * width,
    )
    return Shape(target.name, (_block(width, norms, Rows.JOINT),), rest)


def _block(
    width: int, norms: int, rows: Rows, *, prefix: str = "", modulated: bool = True
) -> Layers:
    inner = int(width / 3 * 8)
    attention, feed = f"{prefix}attention", f"{prefix}feed_forward"
    return Layers(
        joined(
            projections(attention, ("to_q", "to_k", "to_v"), rows, width, width, bias=False),
            Linear(f"{attention}.to_out.0", rows, width, width, False, Split.ROWS),
            projections(feed, ("w1", "w3"), rows, width, inner, bias=False),
            Linear(f"{feed}.w2", rows, inner, width, False, Split.ROWS),
            Linear(f"{prefix}adaLN_modulation.0", Rows.VECTOR, min(width, _CONDITION), 4 * width)
            if modulated
            else (),
        ),
        (Attention(rows, rows, width),),
        vectors=norms + 4 * width,
    )
