"""What of a block's arguments belongs to single tokens: the one thing that ranks which share a
sequence must know about a model.

A family is an entry here, beside the one in `executor.engine.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Part(Enum):
    """Tokens of a forward."""

    HIDDEN = "hidden"
    """Of the hidden stream."""
    ENCODER = "encoder"
    """Of the encoder stream."""
    JOINT = "joint"
    """Of both, in the order in which the blocks attend to them."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tensor with one entry a token along a dimension; where ``ndim`` is another, it has none."""

    part: Part
    dim: int
    ndim: int | None = None


@dataclass(frozen=True, slots=True)
class KeyMask:
    """An argument that says which tokens are attended to: (batch, ..., tokens), false for padding.

    ``is_needed``: the block cannot do without it, although attention is masked by the whole mask.
    """

    name: str
    part: Part
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class SharedList:
    """The blocks of one list.

    ``joint`` is the order of the streams in attention; ``attentions`` name the modules of a block
    whose attention goes over all tokens; ``arguments`` the ones with entries by token, a tuple of
    them where the argument is a tuple of different ones; ``whole`` the streams that are read behind
    the last block, if that is in this list.
    """

    joint: tuple[Part, ...]
    attentions: tuple[str, ...]
    arguments: Mapping[str, Tokens | tuple[Tokens, ...]]
    key_mask: KeyMask | None = None
    whole: tuple[int, ...] = (0,)


_TEXT_FIRST = (Part.ENCODER, Part.HIDDEN)
_TEXT_LAST = (Part.HIDDEN, Part.ENCODER)
_ALONE = (Part.HIDDEN,)

_BOTH = (0, 1)

_FLUX = SharedList(_TEXT_FIRST, ("attn",), {"image_rotary_emb": Tokens(Part.JOINT, 0)})
_HUNYUAN_VIDEO = SharedList(
    _TEXT_LAST,
    ("attn",),
    {"image_rotary_emb": Tokens(Part.HIDDEN, 0), "freqs_cis": Tokens(Part.HIDDEN, 0)},
    KeyMask("attention_mask", Part.JOINT),
)

FAMILIES: Mapping[str, Mapping[str, SharedList]] = {
    "FluxTransformer2DModel": {
        "transformer_blocks": replace(_FLUX, whole=_BOTH),
        "single_transformer_blocks": _FLUX,
    },
    "Flux2Transformer2DModel": {
        "transformer_blocks": replace(_FLUX, whole=_BOTH),
        "single_transformer_blocks": SharedList(
            _ALONE, ("attn",), {"image_rotary_emb": Tokens(Part.HIDDEN, 0)}
        ),
    },
    "QwenImageTransformer2DModel": {
        "transformer_blocks": SharedList(
            _TEXT_FIRST,
            ("attn",),
            {
                "image_rotary_emb": (Tokens(Part.HIDDEN, 0), Tokens(Part.ENCODER, 0)),
                "modulate_index": Tokens(Part.HIDDEN, 1),
            },
            KeyMask("encoder_hidden_states_mask", Part.ENCODER),
        )
    },
    "WanTransformer3DModel": {
        "blocks": SharedList(
            _ALONE,
            ("attn1",),
            # Only where every token has a timestep of its own.
            {"temb": Tokens(Part.HIDDEN, 1, ndim=4), "rotary_emb": Tokens(Part.HIDDEN, 1)},
        )
    },
    "ZImageTransformer2DModel": {
        "layers": SharedList(
            _ALONE,
            ("attention",),
            {"freqs_cis": Tokens(Part.HIDDEN, 1)},
            KeyMask("attn_mask", Part.HIDDEN),
        )
    },
    "HunyuanVideoTransformer3DModel": {
        "transformer_blocks": replace(_HUNYUAN_VIDEO, whole=_BOTH),
        "single_transformer_blocks": _HUNYUAN_VIDEO,
    },
    "HunyuanVideo15Transformer3DModel": {
        "transformer_blocks": SharedList(
            _TEXT_LAST,
            ("attn",),
            {"freqs_cis": Tokens(Part.HIDDEN, 0)},
            KeyMask("attention_mask", Part.ENCODER, is_needed=True),
        )
    },
    "LTXVideoTransformer3DModel": {
        "transformer_blocks": SharedList(
            _ALONE,
            ("attn1",),
            {"temb": Tokens(Part.HIDDEN, 1), "image_rotary_emb": Tokens(Part.HIDDEN, 1)},
        )
    },
}
"""By transformer class and block list."""
