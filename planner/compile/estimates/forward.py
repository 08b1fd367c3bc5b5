"""What one fully computed forward costs, whatever a program makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from planner.compile.estimates.exchange import Rank, Traffic, added
from planner.compile.estimates.weights import parameter_bytes
from planner.compile.plan import Placement
from planner.models.facts import BlockGroup, ModelFacts, Target
from planner.models.layers import Layers, Shape

_KNOWN = 256


@dataclass(frozen=True, slots=True)
class BlockCost:
    flops: int
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class GroupCost:
    """The blocks of one group. FLOPs are those of all ranks together, the rest that of one rank.

    ``blocks``: one of each list and how many there are, in execution order.
    ``stream_elements``: of one tensor of each stream. ``whole``: what its end exchanges.
    """

    blocks: tuple[tuple[BlockCost, int], ...]
    stream_elements: tuple[int, ...]
    activation_bytes: int
    whole: Traffic

    @property
    def flops(self) -> int:
        return sum(block.flops * count for block, count in self.blocks)

    @property
    def traffic(self) -> Traffic:
        return added((self.whole, 1), *((block.traffic, count) for block, count in self.blocks))

    def ends_flops(self, first: int, last: int) -> int:
        """FLOPs of so many first and last blocks."""
        return sum(block.flops * count for block, count in self._ends(first, last))

    def ends_traffic(self, first: int, last: int) -> Traffic:
        """What a forward exchanges that computes so many first and last blocks."""
        ends = ((block.traffic, count) for block, count in self._ends(first, last))
        return added((self.whole, 1), *ends)

    def _ends(self, first: int, last: int) -> list[tuple[BlockCost, int]]:
        return [*_taken(self.blocks, first), *_taken(self.blocks[::-1], last)]


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """``groups`` by target and block lists; by target ``rest_flops``, those outside of blocks, and
    ``output_bytes`` of the tensor that it returns.
    """

    groups: Mapping[tuple[str, tuple[str, ...]], GroupCost]
    rest_flops: Mapping[str, int]
    output_bytes: Mapping[str, int]
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
                # What comes next reads every stream, what comes last only the hidden one.
                is_last=group is [g for g in model.groups if g.target == group.target][-1],
            )
            for group in model.groups
        },
        rest_flops={name: rank.batch * shapes[name].rest.flops(rank.tokens) for name in targets},
        output_bytes={name: _output_bytes(shapes[name], rank) for name in targets},
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
    group: BlockGroup,
    target: Target,
    blocks: list[tuple[Layers, int]],
    rank: Rank,
    *,
    is_last: bool,
) -> GroupCost:
    streams = rank.stream_elements(group, target)
    widest = max((rank.layer_bytes(group, layers) for layers, _ in blocks), default=0)
    return GroupCost(
        blocks=tuple(
            (
                BlockCost(
                    rank.batch * layers.flops(rank.tokens),
                    rank.block_traffic(group, target, layers),
                ),
                count,
            )
            for layers, count in blocks
        ),
        stream_elements=streams,
        activation_bytes=sum(streams) * rank.dtype_bytes + widest,
        whole=rank.whole_traffic(group, target, all_streams=not is_last),
    )


def _output_bytes(shape: Shape, rank: Rank) -> int:
    """The last layer of a transformer gives what it returns."""
    last = shape.rest.linears[-1]
    return rank.batch * rank.tokens.of(last.rows) * last.outputs * rank.dtype_bytes


def _taken(
    blocks: tuple[tuple[BlockCost, int], ...], count: int
) -> Iterator[tuple[BlockCost, int]]:
    """The first ``count`` blocks."""
    for block, n in blocks:
        taken = min(n, count)
        yield block, taken
        count -= taken
