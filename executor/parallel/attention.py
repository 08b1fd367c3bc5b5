"""Attention over tokens that ranks share: Ulysses, ring, and both.

Ulysses (DeepSpeed-Ulysses) exchanges tokens for heads, so that each rank attends with a share of
the heads over the tokens of all; a ring (Ring Attention) hands keys and values round and merges the
partial results by their log-sum-exp. Together (USP), heads are exchanged within a column of the
mesh, and keys and values go round its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    dispatch_attention_fn,
)
from torch import Tensor

from executor.engine.attention import carrying
from executor.engine.program import Topology
from executor.parallel.head_exchange import HeadExchange
from executor.parallel.mesh import Mesh
from executor.parallel.partial import merge_fault, merged, partial_attention
from executor.parallel.wire import padded


@dataclass(slots=True)
class SharedTokens:
    """The tokens of one forward: how many each rank of the sequence group holds, and which of them
    are padding, by rank in order: (batch, 1, 1, tokens), or None.
    """

    lengths: list[int]
    mask: Tensor | None = None


class SharedAttention:
    """Attention of one block group on one rank. ``tokens`` are those of the current forward.

    Queries, keys and values are (batch, tokens, heads, channels). What a rank has gathered it
    attends to with ``backend``.

    Raises:
        ValueError: a ring is to merge partial results, which the backend does not give.
    """

    def __init__(self, mesh: Mesh, topology: Topology, backend: str) -> None:
        fault = merge_fault(topology.ring_size, topology.ring_rotate_method, backend)
        if fault is not None:
            raise ValueError(fault)
        self._ring = mesh.ring
        self._ulysses = mesh.ulysses
        self._topology = topology
        self._backend = AttentionBackendName(backend)
        self.tokens = SharedTokens([])

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        if self._ulysses.size == 1:
            return self._attend(query, key, value, scale)
        exchange = HeadExchange(
            self._ulysses,
            self._row(self._ring.index),
            query.shape[2],
            float8_payload=self._topology.ulysses_float8,
        )
        # The second half of the heads travels while the first is attended to.
        rounds = exchange.rounds(2 if self._topology.ulysses_async else 1)
        coming = [exchange.gather_tokens((query, key, value), heads) for heads in rounds]
        going = []
        for heads, arrive in zip(rounds, coming, strict=True):
            q, k, v = arrive()
            out = self._attend(q, k, v, scale) if q.shape[2] else q
            going.append(exchange.gather_heads(out, heads))
        result = torch.empty_like(query)
        for put in going:
            put(result)
        return result

    def _row(self, ring_index: int) -> list[int]:
        """Tokens of the ranks that exchange heads, at one place of the ring."""
        size = self._ulysses.size
        return self.tokens.lengths[ring_index * size : (ring_index + 1) * size]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        if self._ring.size == 1:
            return self._local(query, key, value, scale)
        chunks = [sum(self._row(r)) for r in range(self._ring.size)]
        if self._topology.ring_rotate_method == "allgather":
            key, value = self._gathered(key, value, chunks)
            return self._local(query, key, value, scale)
        return self._rotated(query, key, value, chunks, scale)

    def _gathered(self, key: Tensor, value: Tensor, chunks: list[int]) -> tuple[Tensor, Tensor]:
        both = self._ring.all_gather(padded(torch.stack([key, value]), 2, max(chunks)))
        parts = [both[rank, :, :, :length] for rank, length in enumerate(chunks)]
        keys, values = torch.cat(parts, dim=2)
        return keys, values

    def _rotated(
        self, query: Tensor, key: Tensor, value: Tensor, chunks: list[int], scale: float | None
    ) -> Tensor:
        size, mine = self._ring.size, self._ring.index
        batch, _, heads, channels = key.shape
        masks = None if self.tokens.mask is None else torch.split(self.tokens.mask, chunks, dim=-1)
        both = torch.stack([key, value])
        found = None
        for turn in range(size):
            here = (mine - turn) % size
            if turn < size - 1:
                # The next chunk travels while this one is attended to.
                coming = chunks[(here - 1) % size]
                shape = (2, batch, coming, heads, channels)
                following, wait = self._ring.rotate(
                    both.flatten(), both.numel() * coming // max(chunks[here], 1)
                )
            part = partial_attention(
                query, both[0], both[1], None if masks is None else masks[here], scale
            )
            if self._topology.ring_convert_to_fp32:
                part = part[0].float(), part[1]
            found = part if found is None else merged(found, part)
            if turn < size - 1:
                wait()
                both = following.view(shape)
        assert found is not None
        return found[0].to(query.dtype)

    def _local(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        result: Tensor = dispatch_attention_fn(
            query, key, value, attn_mask=self.tokens.mask, scale=scale, backend=self._backend
        )
        return result


def _shared_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    _parallel_config: SharedAttention,
) -> Tensor:
    """What diffusers' dispatcher calls. The model's mask is of this rank's tokens alone: the one
    of all ranks' takes its place.
    """
    return _parallel_config(query, key, value, scale)


def _register() -> AttentionBackendName:
    """A backend of diffusers' dispatcher beside its own, none of which changes."""
    name: AttentionBackendName = str.__new__(AttentionBackendName, "ditplan_shared")
    name._name_ = "DITPLAN_SHARED"
    name._value_ = "ditplan_shared"
    # What ranks exchange cannot be traced: a compiled block is divided at its attention.
    untraced = torch.compiler.disable(_shared_attention)  # type: ignore[no-untyped-call]
    _AttentionBackendRegistry.register(name)(untraced)
    return name


_BACKEND = _register()


def attending(
    processors: Sequence[Any], attention: SharedAttention
) -> AbstractContextManager[None]:
    """Has the attention of these processors go over the tokens of all ranks, in the context."""
    return carrying(processors, {"_attention_backend": _BACKEND, "_parallel_config": attention})
