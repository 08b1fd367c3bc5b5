"""Tokens for heads: what Ulysses attention exchanges before it attends, and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor

from executor.parallel import float8
from executor.parallel.wire import Group, shares


class HeadExchange:
    """Exchanges tokens for heads among ranks that hold ``lengths`` tokens each, and back."""

    def __init__(
        self, group: Group, lengths: Sequence[int], heads: int, *, float8_payload: bool
    ) -> None:
        self._group = group
        self._lengths = list(lengths)
        self._heads = heads
        self._float8 = float8_payload

    def rounds(self, count: int) -> list[list[range]]:
        """The heads of every rank, divided into so many rounds."""
        by_rank = [
            [range(own.start + a, own.start + b) for a, b in _ranges(len(own), count)]
            for own in (range(a, b) for a, b in _ranges(self._heads, self._group.size))
        ]
        return [list(heads) for heads in zip(*by_rank, strict=True)]

    def gather_tokens(
        self, tensors: Sequence[Tensor], heads: list[range]
    ) -> Callable[[], list[Tensor]]:
        """All tokens of this rank's heads, once waited for, of its tokens of all heads."""
        batch, _, _, channels = tensors[0].shape
        mine = len(heads[self._group.index])
        parts = [[t[:, :, h.start : h.stop] for t in tensors] for h in heads]
        shapes = [(len(tensors), batch, length, mine, channels) for length in self._lengths]
        arrive = self._exchange(parts, shapes, tensors[0])

        def gathered() -> list[Tensor]:
            return list(torch.cat(arrive(), dim=2).unbind())

        return gathered

    def gather_heads(self, tensor: Tensor, heads: list[range]) -> Callable[[Tensor], None]:
        """All heads of this rank's tokens, once waited for, of its heads of all tokens.

        The heads are put into the tensor that is given when waiting.
        """
        batch, _, _, channels = tensor.shape
        tokens = self._lengths[self._group.index]
        parts = [[part] for part in torch.split(tensor, self._lengths, dim=1)]
        shapes = [(1, batch, tokens, len(h), channels) for h in heads]
        arrive = self._exchange(parts, shapes, tensor)

        def put(result: Tensor) -> None:
            for h, part in zip(heads, arrive(), strict=True):
                result[:, :, h.start : h.stop] = part[0]

        return put

    def _exchange(
        self, parts: list[list[Tensor]], shapes: Sequence[tuple[int, ...]], like: Tensor
    ) -> Callable[[], list[Tensor]]:
        """Parts to every rank, and tensors of these shapes from every rank in return."""
        sent = [self._packed(each) for each in parts]
        channels = like.shape[-1]
        elements = [prod(shape) for shape in shapes]
        sizes = [float8.payload_bytes(n, channels) for n in elements] if self._float8 else elements
        received, wait = self._group.all_to_all(
            torch.cat(sent), [each.numel() for each in sent], sizes
        )

        def arrived() -> list[Tensor]:
            wait()
            return [
                self._unpacked(part, shape, like.dtype)
                for part, shape in zip(torch.split(received, sizes), shapes, strict=True)
            ]

        return arrived

    def _packed(self, tensors: list[Tensor]) -> Tensor:
        flat = torch.cat([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors])
        return float8.encoded(flat) if self._float8 else flat.flatten()

    def _unpacked(self, part: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return float8.decoded(part, shape, dtype) if self._float8 else part.view(shape)


def _ranges(count: int, ranks: int) -> Iterator[tuple[int, int]]:
    """Where each share of so many things begins and ends."""
    return pairwise([0, *accumulate(shares(count, ranks))])
