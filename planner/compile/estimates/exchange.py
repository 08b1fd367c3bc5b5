"""What the ranks of a forward exchange, and what each of them holds meanwhile.

Exact, as rank 0 counts it: it has the largest share of everything that does not divide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from planner.compile.plan import Topology
from planner.models.facts import BlockGroup, Target
from planner.models.layers import Attention, Layers, Linear, Rows, Split, TokenCounts, shares

DECISION_BYTES = 24
"""Two sums and a count, each of eight bytes."""
OUTCOME_BYTES = 16
"""What an ADAPTIVE op did and its residual diff, each of eight bytes."""
HELD_BYTES = 8
"""What the cache of a column held."""
_SCALE_BYTES = 4
"""Of each row of 8-bit values."""
_SUM_BYTES = 4
"""Of each token in a norm across heads: squares are summed in fp32."""


class Key(NamedTuple):
    """A kind of collective, and the group of the mesh that it runs in."""

    collective: str
    group: str


ALL_TO_ALL = Key("all_to_all", "ulysses")
SEND_RECV = Key("send_recv", "ring")
ALL_GATHER_RING = Key("all_gather", "ring")
ALL_GATHER = Key("all_gather", "sequence")
ALL_REDUCE = Key("all_reduce", "tp")
DECISION = Key("decision", "branch")
GUIDANCE = Key("all_gather", "guidance")


class Volume(NamedTuple):
    """``bytes`` that a rank sends to others; of an all-reduce, that it puts into the sum."""

    calls: int
    bytes: int


Traffic = Mapping[Key, Volume]


def added(*traffics: tuple[Traffic, int]) -> dict[Key, Volume]:
    """The sum of traffics, each as many times as said."""
    total: dict[Key, Volume] = {}
    for traffic, times in traffics:
        for key, (calls, nbytes) in traffic.items():
            if times and calls:
                before = total.get(key, Volume(0, 0))
                total[key] = Volume(before.calls + times * calls, before.bytes + times * nbytes)
    return total


@dataclass(frozen=True, slots=True)
class Rank:
    """Rank 0's share of a forward of ``batch`` rows."""

    tokens: TokenCounts
    topology: Topology
    batch: int
    dtype_bytes: int

    @property
    def sequence_ranks(self) -> int:
        return self.topology.ring_size * self.topology.ulysses_size

    def stream_elements(self, group: BlockGroup, target: Target) -> tuple[int, ...]:
        """Elements of one tensor of each stream of a group."""
        return tuple(
            self.batch * ceil(self.tokens.of(rows) / self.sequence_ranks) * target.hidden_size
            for rows in group.streams
        )

    def block_traffic(self, group: BlockGroup, target: Target, layers: Layers) -> Traffic:
        """Of one block of a group."""
        exchanged = (each for each in layers.attentions if each.exchanged)
        return added(
            *((self._attention_traffic(group, target, each), 1) for each in exchanged),
            *((self._linear_traffic(group, linear), 1) for linear in layers.linears),
            *((self._norm_traffic(group, each), 1) for each in layers.attentions),
        )

    def whole_traffic(self, group: BlockGroup, target: Target, *, all_streams: bool) -> Traffic:
        """Of a group's end, where the hidden stream is put together again, or every stream."""
        ranks = self.sequence_ranks
        if ranks == 1:
            return {}
        elements = self.stream_elements(group, target)
        read = elements if all_streams else elements[:1]
        return {ALL_GATHER: Volume(len(read), (ranks - 1) * sum(read) * self.dtype_bytes)}

    def layer_bytes(self, group: BlockGroup, layers: Layers) -> int:
        """Inputs and outputs of the widest layer, or of the attention."""
        tp = self.topology.tp_size
        most = 0
        for linear in layers.linears:
            inputs = ceil(linear.inputs / tp) if linear.split is Split.ROWS else linear.inputs
            outputs = linear.outputs
            if linear.split is Split.COLUMNS:
                outputs = ceil(outputs / tp)
            most = max(most, self._rows(group, linear.rows) * (inputs + outputs))
        for attention in layers.attentions:
            queries = self._rows(group, attention.queries)
            keys = self._rows(group, attention.keys) if attention.exchanged else 0
            keys = keys or self.tokens.of(attention.keys)
            most = max(most, (2 * queries + 2 * keys) * ceil(attention.width / tp))
        return most * self.batch * self.dtype_bytes

    def _attention_traffic(
        self, group: BlockGroup, target: Target, attention: Attention
    ) -> Traffic:
        """Queries, keys and values to the ranks of their heads and the result back; keys and values
        round a ring, or to all of it at once.
        """
        ring, ulysses = self.topology.ring_size, self.topology.ulysses_size
        # Tokens by rank, then by place of the ring.
        lengths = self._lengths(group, attention.queries)
        chunks = [sum(lengths[r * ulysses : (r + 1) * ulysses]) for r in range(ring)]
        heads = ceil(target.num_attention_heads / self.topology.tp_size)
        own = ceil(heads / ulysses)
        channels = attention.width // target.num_attention_heads
        traffic = {}
        if ulysses > 1:
            rows = 3 * lengths[0] * (heads - own) + (chunks[0] - lengths[0]) * own
            size = channels * self.dtype_bytes
            if self.topology.ulysses_float8:
                size = channels + _SCALE_BYTES
            calls = 4 if self.topology.ulysses_async else 2
            traffic[ALL_TO_ALL] = Volume(calls, self.batch * rows * size)
        if ring > 1:
            size = 2 * own * channels * self.batch * self.dtype_bytes
            if self.topology.ring_rotate_method == "allgather":
                traffic[ALL_GATHER_RING] = Volume(1, (ring - 1) * max(chunks) * size)
            else:
                # Its own, and those that it hands on: all but the next rank's.
                sent = sum(chunks) - chunks[1]
                traffic[SEND_RECV] = Volume(ring - 1, sent * size)
        return traffic

    def _linear_traffic(self, group: BlockGroup, linear: Linear) -> Traffic:
        """The partial results of a layer that is split by inputs."""
        if self.topology.tp_size == 1 or linear.split is not Split.ROWS:
            return {}
        elements = self._rows(group, linear.rows) * linear.outputs * self.batch
        return {ALL_REDUCE: Volume(1, elements * self.dtype_bytes)}

    def _norm_traffic(self, group: BlockGroup, attention: Attention) -> Traffic:
        """The sums of squares of norms across the heads of all ranks."""
        if self.topology.tp_size == 1 or not attention.normed:
            return {}
        sums = self.batch * sum(self._rows(group, rows) for rows in attention.normed)
        return {ALL_REDUCE: Volume(len(attention.normed), sums * _SUM_BYTES)}

    def _rows(self, group: BlockGroup, rows: Rows) -> int:
        """Tokens of a layer on rank 0: what is no stream is not shared."""
        if rows in group.streams or rows is Rows.JOINT:
            return self._lengths(group, rows)[0]
        return self.tokens.of(rows)

    def _lengths(self, group: BlockGroup, rows: Rows) -> list[int]:
        """Tokens of every rank of a sequence, whose streams are shared each by itself."""
        streams = group.streams if rows is Rows.JOINT else (rows,)
        by_stream = [shares(self.tokens.of(stream), self.sequence_ranks) for stream in streams]
        return [sum(of_rank) for of_rank in zip(*by_stream, strict=True)]
