"""What one fully computed forward costs, whatever a program makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from planner.compile.exchange import Rank
from planner.compile.plan import Placement
from planner.compile.weights import parameter_bytes
from planner.models.facts import BlockGroup, ModelFacts, Target
from planner.models.layers import Layers

_KNOWN = 256


@dataclass(frozen=True, slots=True)
class GroupCost:
    """The blocks of one group. FLOPs are those of all ranks together, the rest that of one rank.

    ``blocks``: the FLOPs of a block with how many are alike, in execution order.
    ``stream_elements``: of one tensor of each stream.
    """

    blocks: tuple[tuple[int, int], ...]
    stream_elements: tuple[int, ...]
    activation_bytes: int
    all_to_all_bytes: int
    ring_bytes: int
    all_reduce_bytes: int

    @property
    def flops(self) -> int:
        return sum(flops * count for flops, count in self.blocks)

    def ends_flops(self, first: int, last: int) -> int:
        """FLOPs of so many first and last blocks."""
        return _first(self.blocks, first) + _first(self.blocks[::-1], last)


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """``groups`` by target and block lists; ``rest_flops``: outside of blocks, by target."""

    groups: Mapping[tuple[str, tuple[str, ...]], GroupCost]
    rest_flops: Mapping[str, int]
    parameter_bytes: int


@lru_cache(_KNOWN)
def forward_cost(model: ModelFacts, rank: Rank, placement: Placement) -> ForwardCost:
    """Kept for the next program of the same model, size and ranks. All layers must be known."""
    targets = {target.name: target for target in model.architecture.targets}
    shapes = {shape.target: shape for shape in model.shapes}
    blocks: dict[str, dict[str, tuple[Layers, int]]] = {
        name: {
            listed.name: (layers, listed.num_blocks)
            for listed, layers in zip(target.block_lists, shapes[name].blocks, strict=True)
        }
        for name, target in targets.items()
    }
    return ForwardCost(
        groups={
            (group.target, group.block_lists): _group_cost(
                group,
                targets[group.target],
                [blocks[group.target][name] for name in group.block_lists],
                rank,
            )
            for group in model.groups
        },
        rest_flops={name: rank.batch * shapes[name].rest.flops(rank.tokens) for name in targets},
        parameter_bytes=sum(
            parameter_bytes(
                target,
                shapes[name],
                placement,
                tp_size=rank.topology.tp_size,
                dtype_bytes=rank.dtype_bytes,
            )
            for name, target in targets.items()
        ),
    )


def _group_cost(
    group: BlockGroup, target: Target, blocks: list[tuple[Layers, int]], rank: Rank
) -> GroupCost:
    streams = rank.stream_elements(group, target)
    widest = max((rank.layer_bytes(layers) for layers, _ in blocks), default=0)
    attentions = [(each, n) for layers, n in blocks for each in layers.attentions]
    return GroupCost(
        blocks=tuple((rank.batch * layers.flops(rank.tokens), n) for layers, n in blocks),
        stream_elements=streams,
        activation_bytes=sum(streams) * rank.dtype_bytes + widest,
        all_to_all_bytes=sum(
            n * rank.all_to_all_bytes(attention, target.attention_head_dim)
            for attention, n in attentions
        ),
        ring_bytes=sum(n * rank.ring_bytes(attention) for attention, n in attentions),
        all_reduce_bytes=sum(
            n * rank.all_reduce_bytes(linear) for layers, n in blocks for linear in layers.linears
        ),
    )


def _first(blocks: tuple[tuple[int, int], ...], count: int) -> int:
    """FLOPs of the first ``count`` blocks."""
    total = 0
    for flops, n in blocks:
        taken = min(n, count)
        total += taken * flops
        count -= taken
    return total
