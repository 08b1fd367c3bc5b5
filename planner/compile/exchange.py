"""What the ranks of one fully computed forward exchange, and what each of them holds meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from planner.compile.plan import Topology
from planner.models.facts import BlockGroup, Target
from planner.models.layers import Attention, Layers, Linear, Split, TokenCounts


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank's share of a forward of ``batch`` rows."""

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
            self.batch * self.tokens.share(rows, self.sequence_ranks) * target.hidden_size
            for rows in group.streams
        )

    def all_to_all_bytes(self, attention: Attention, head_dim: int) -> int:
        """Queries, keys and values to the ranks of their heads, and the result back."""
        ranks = self.topology.ulysses_size
        if ranks == 1 or not attention.exchanged:
            return 0
        queries, keys = self._shares(attention, self.sequence_ranks)
        values = (2 * queries + 2 * keys) * self._width(attention, 1) * self.batch
        # A row of 8-bit values has its scale with it.
        size = values * self.dtype_bytes
        if self.topology.ulysses_float8:
            size = values + 4 * (values // head_dim)
        return size * (ranks - 1) // ranks

    def ring_bytes(self, attention: Attention) -> int:
        """Keys and values, once to every other rank of the ring."""
        ranks = self.topology.ring_size
        if ranks == 1 or not attention.exchanged:
            return 0
        _, keys = self._shares(attention, ranks)
        width = self._width(attention, self.topology.ulysses_size)
        return (ranks - 1) * 2 * keys * width * self.batch * self.dtype_bytes

    def all_reduce_bytes(self, linear: Linear) -> int:
        """The partial results of a layer that is split by inputs."""
        if self.topology.tp_size == 1 or linear.split is not Split.ROWS:
            return 0
        return self._rows(linear) * linear.outputs * self.batch * self.dtype_bytes

    def layer_bytes(self, layers: Layers) -> int:
        """Inputs and outputs of the widest layer, or of the attention."""
        tp = self.topology.tp_size
        most = 0
        for linear in layers.linears:
            inputs = ceil(linear.inputs / tp) if linear.split is Split.ROWS else linear.inputs
            outputs = linear.outputs
            if linear.split is Split.COLUMNS:
                outputs = ceil(outputs / tp)
            most = max(most, self._rows(linear) * (inputs + outputs))
        for attention in layers.attentions:
            queries, keys = self._shares(attention, self.sequence_ranks)
            most = max(most, (2 * queries + 2 * keys) * self._width(attention, 1))
        return most * self.batch * self.dtype_bytes

    def _rows(self, linear: Linear) -> int:
        return self.tokens.share(linear.rows, self.sequence_ranks)

    def _shares(self, attention: Attention, ranks: int) -> tuple[int, int]:
        """Queries and keys of a sequence that is split over so many ranks."""
        queries = self.tokens.share(attention.queries, ranks)
        if not attention.exchanged:
            return queries, self.tokens.of(attention.keys)
        return queries, self.tokens.share(attention.keys, ranks)

    def _width(self, attention: Attention, more: int) -> int:
        """Channels of a rank's heads, these split over ``more`` ranks besides."""
        return ceil(attention.width / (self.topology.tp_size * more))
