"""How ranks share the layers of a text encoder: the same split, by the layer's class."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from executor.parallel.tensor import NotSplittableError, check_blocks, split_blocks
from executor.parallel.tensor_families import HEADS, INNER, BlockSplit
from executor.parallel.wire import Group


def _t5(attention: str, feed_forward: str) -> BlockSplit:
    up = {f"{feed_forward}.{layer}": INNER for layer in ("wi", "wi_0", "wi_1")}
    bias = f"{attention}.relative_attention_bias"
    return BlockSplit(
        columns={f"{attention}.{layer}": HEADS for layer in "qkv"} | up,
        rows={f"{attention}.o": HEADS, f"{feed_forward}.wo": INNER},
        attentions=(attention,),
        tables=(bias,),
        # Either one layer goes up or two do; of T5's blocks only the first has a bias.
        optional=frozenset({*up, bias}),
    )


_T5 = _t5("layer.0.SelfAttention", "layer.1.DenseReluDense")
_QKV = {f"self_attn.{layer}_proj": HEADS for layer in "qkv"}
_CLIP = BlockSplit(
    columns=_QKV | {"mlp.fc1": INNER},
    rows={"self_attn.out_proj": HEADS, "mlp.fc2": INNER},
    attentions=("self_attn",),
)
# Key and value heads are divided too, so that each rank's queries find theirs.
_DECODER = BlockSplit(
    columns=_QKV | {"mlp.gate_proj": INNER, "mlp.up_proj": INNER},
    rows={"self_attn.o_proj": HEADS, "mlp.down_proj": INNER},
    attentions=("self_attn",),
)

LAYERS: Mapping[str, BlockSplit] = {
    "CLIPEncoderLayer": _CLIP,
    "T5Block": _T5,
    "UMT5Block": _T5,
    "LlamaDecoderLayer": _DECODER,
    "MistralDecoderLayer": _DECODER,
    "Qwen2_5_VLDecoderLayer": _DECODER,
    "Qwen3DecoderLayer": _DECODER,
}
"""Splits by the class of a layer, wherever in an encoder it is."""


def split_text_encoder(module: nn.Module, group: Group) -> None:
    """Leaves an encoder with this rank's part of its layers' weights, as `split_tensors` does.

    Embeddings, and what sees pictures in a language model, stay whole.

    Raises:
        NotSplittableError: it has no such layers, or something does not divide.
    """
    split_blocks(_layers(module), group)


def check_text_encoder(module: nn.Module, size: int) -> None:
    """Raises NotSplittableError where so many ranks could not share an encoder."""
    check_blocks(_layers(module), size)


def _layers(module: nn.Module) -> list[tuple[str, nn.Module, BlockSplit]]:
    layers = [
        (name, layer, LAYERS[type(layer).__name__])
        for name, layer in module.named_modules()
        if type(layer).__name__ in LAYERS
    ]
    if not layers:
        raise NotSplittableError(
            f"{type(module).__name__}: no split is known; known layers: {', '.join(LAYERS)}"
        )
    return layers
