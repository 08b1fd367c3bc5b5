"""How tensor parallelism splits the blocks of each family: by outputs, by inputs, or not at all.

A family is an entry here: for every block list of its transformer, the layers that are split.
What is not named stays whole on every rank: modulation, embedders, refiners, the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segments:
    """What a split dimension consists of: first ``heads`` times the channels of all heads, then
    ``inner`` times those of the feed-forward. Every rank gets its part of each.
    """

    heads: int = 0
    inner: int = 0

    def sizes(self, channels: int, width: int) -> list[int]:
        """Of a dimension of so many channels, where the attention has heads of ``width`` in all."""
        if not self.inner:
            return [channels // self.heads] * self.heads
        each = (channels - self.heads * width) // self.inner
        return [width] * self.heads + [each] * self.inner


@dataclass(frozen=True, slots=True)
class BlockSplit:
    """The split layers of one block, by module name.

    ``columns`` are split by outputs, ``rows`` by inputs. ``attentions`` count their heads,
    ``norms`` are across all heads, ``tables`` have a column for every head. Blocks of some
    checkpoints do without what is in ``optional``.
    """

    columns: Mapping[str, Segments]
    rows: Mapping[str, Segments]
    attentions: tuple[str, ...]
    norms: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FamilySplit:
    """By block list. ``rotary``: the module that gives a rotation for the channels of all heads."""

    blocks: Mapping[str, BlockSplit]
    rotary: str | None = None


HEADS = Segments(heads=1)
INNER = Segments(inner=1)
GATED = Segments(inner=2)
HEADS_AND_INNER = Segments(heads=1, inner=1)


def _each(module: str, layers: tuple[str, ...], segments: Segments = HEADS) -> dict[str, Segments]:
    return {f"{module}.{layer}": segments for layer in layers}


_QKV = ("to_q", "to_k", "to_v")
_ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")
_JOINT_OUT = ("to_out.0", "to_add_out")
_QK_NORMS = ("norm_q", "norm_k")


def _double(image: str, text: str) -> BlockSplit:
    """Image and text side by side under one attention, each with a feed-forward."""
    return BlockSplit(
        columns=_each("attn", _QKV + _ADDED_QKV)
        | {f"{image}.net.0.proj": INNER, f"{text}.net.0.proj": INNER},
        rows=_each("attn", _JOINT_OUT) | {f"{image}.net.2": INNER, f"{text}.net.2": INNER},
        attentions=("attn",),
    )


def _crossed(feed_forward: str, added: tuple[str, ...] = ()) -> BlockSplit:
    """Attention to itself, then to the prompt, queries and keys normed across heads."""
    norms = [f"{attention}.{norm}" for attention in ("attn1", "attn2") for norm in _QK_NORMS]
    optional = _each("attn2", added)
    return BlockSplit(
        columns=_each("attn1", _QKV)
        | _each("attn2", _QKV)
        | optional
        | {f"{feed_forward}.net.0.proj": INNER},
        rows={"attn1.to_out.0": HEADS, "attn2.to_out.0": HEADS, f"{feed_forward}.net.2": INNER},
        attentions=("attn1", "attn2"),
        norms=(*norms, *(("attn2.norm_added_k",) if added else ())),
        optional=frozenset(optional) | ({"attn2.norm_added_k"} if added else set()),
    )


_DOUBLE = _double("ff", "ff_context")
_SINGLE = BlockSplit(
    columns=_each("attn", _QKV) | {"proj_mlp": INNER},
    rows={"proj_out": HEADS_AND_INNER},
    attentions=("attn",),
)

FAMILIES: Mapping[str, FamilySplit] = {
    "FluxTransformer2DModel": FamilySplit(
        {"transformer_blocks": _DOUBLE, "single_transformer_blocks": _SINGLE}
    ),
    "Flux2Transformer2DModel": FamilySplit(
        {
            "transformer_blocks": BlockSplit(
                columns=_each("attn", _QKV + _ADDED_QKV)
                | {"ff.linear_in": GATED, "ff_context.linear_in": GATED},
                rows=_each("attn", _JOINT_OUT)
                | {"ff.linear_out": INNER, "ff_context.linear_out": INNER},
                attentions=("attn",),
            ),
            "single_transformer_blocks": BlockSplit(
                columns={"attn.to_qkv_mlp_proj": Segments(heads=3, inner=2)},
                rows={"attn.to_out": HEADS_AND_INNER},
                attentions=("attn",),
            ),
        }
    ),
    "QwenImageTransformer2DModel": FamilySplit(
        {"transformer_blocks": _double("img_mlp", "txt_mlp")}
    ),
    "WanTransformer3DModel": FamilySplit({"blocks": _crossed("ffn", ("add_k_proj", "add_v_proj"))}),
    "ZImageTransformer2DModel": FamilySplit(
        {
            "layers": BlockSplit(
                columns=_each("attention", _QKV) | _each("feed_forward", ("w1", "w3"), INNER),
                rows={"attention.to_out.0": HEADS, "feed_forward.w2": INNER},
                attentions=("attention",),
            )
        }
    ),
    "HunyuanVideoTransformer3DModel": FamilySplit(
        {"transformer_blocks": _DOUBLE, "single_transformer_blocks": _SINGLE}
    ),
    "HunyuanVideo15Transformer3DModel": FamilySplit({"transformer_blocks": _DOUBLE}),
    "LTXVideoTransformer3DModel": FamilySplit(
        {"transformer_blocks": _crossed("ff")}, rotary="rope"
    ),
}
"""Splits by transformer class."""
