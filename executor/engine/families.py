"""How the blocks of each family are called: the one thing the cache must know about a model.

A family is an entry here: for every block list of its transformer, the streams that a block takes
and those that it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Streams = tuple[Tensor, ...]
"""What passes from block to block: the hidden stream, then the encoder stream if there is one."""


@dataclass(frozen=True, slots=True)
class BlockCall:
    """The calling convention of one block list.

    ``takes`` names the parameters of the streams, hidden first; ``returns`` lists, in the order of
    a block's output, which of them it returns.
    """

    takes: tuple[str, ...]
    returns: tuple[int, ...]

    def streams(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Streams:
        """The streams among the arguments of a call of a block."""
        by_name = [kwargs[name] for name in self.takes if name in kwargs]
        return (*args[: len(self.takes) - len(by_name)], *by_name)

    def after(self, streams: Streams, output: Any) -> Streams:
        """What a block that took the streams and returned the output made of them."""
        if len(self.returns) == 1:
            output = (output,)
        after = list(streams)
        for i, stream in zip(self.returns, output, strict=True):
            after[i] = stream
        return tuple(after)

    def output(self, streams: Streams) -> Any:
        """The streams as a block of this list would return them."""
        returned = tuple(streams[i] for i in self.returns)
        return returned if len(returned) > 1 else returned[0]


_STREAMS = ("hidden_states", "encoder_hidden_states")
_ENCODER_FIRST = BlockCall(_STREAMS, returns=(1, 0))
_HIDDEN_FIRST = BlockCall(_STREAMS, returns=(0, 1))
# What such blocks take of the encoder they only read.
_HIDDEN_ONLY = BlockCall(("hidden_states",), returns=(0,))

FAMILIES: Mapping[str, Mapping[str, BlockCall]] = {
    "FluxTransformer2DModel": {
        "transformer_blocks": _ENCODER_FIRST,
        "single_transformer_blocks": _ENCODER_FIRST,
    },
    "Flux2Transformer2DModel": {
        "transformer_blocks": _ENCODER_FIRST,
        "single_transformer_blocks": _HIDDEN_ONLY,
    },
    "QwenImageTransformer2DModel": {"transformer_blocks": _ENCODER_FIRST},
    "WanTransformer3DModel": {"blocks": _HIDDEN_ONLY},
    "ZImageTransformer2DModel": {"layers": BlockCall(("x",), returns=(0,))},
    "HunyuanVideoTransformer3DModel": {
        "transformer_blocks": _HIDDEN_FIRST,
        "single_transformer_blocks": _HIDDEN_FIRST,
    },
    "HunyuanVideo15Transformer3DModel": {"transformer_blocks": _HIDDEN_FIRST},
    "LTXVideoTransformer3DModel": {"transformer_blocks": _HIDDEN_ONLY},
}
"""Calling conventions by transformer class and block list."""
