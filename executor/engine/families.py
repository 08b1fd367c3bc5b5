"""How the blocks of each family are called: the one thing the cache must know about a model.

A family is an entry here: for every block list of its transformer, the streams that a block takes
and those that it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

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

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Streams, BoundCall]:
        """Separates the streams of a call from the arguments that all blocks of a list share."""
        shared = dict(kwargs)
        by_name = [shared.pop(name) for name in self.takes if name in shared]
        by_position = len(self.takes) - len(by_name)
        streams = (*args[:by_position], *by_name)
        return streams, BoundCall(self, by_position, args[by_position:], shared)

    def output(self, streams: Streams) -> Any:
        """The streams as a block of this list would return them."""
        returned = tuple(streams[i] for i in self.returns)
        return returned if len(returned) > 1 else returned[0]


@dataclass(frozen=True, slots=True)
class BoundCall:
    """A call of a block list with its shared arguments filled in."""

    convention: BlockCall
    by_position: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, blocks: Sequence[nn.Module], streams: Streams) -> Streams:
        """Passes the streams through blocks, in order."""
        takes, returns, split = self.convention.takes, self.convention.returns, self.by_position
        for block in blocks:
            named = dict(zip(takes[split:], streams[split:], strict=True))
            output = block(*streams[:split], *self.args, **named, **self.kwargs)
            if len(returns) == 1:
                output = (output,)
            changed = dict(zip(returns, output, strict=True))
            streams = tuple(changed.get(i, stream) for i, stream in enumerate(streams))
        return streams


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
}
"""Calling conventions by transformer class and block list."""

PIPELINES = frozenset({"FluxPipeline"})
"""The pipeline classes that whole runs are made of so far."""
