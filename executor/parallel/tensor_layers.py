"""The layers that tensor parallel ranks compute together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.parallel.wire import Group

_numbers = count()
_links: WeakValueDictionary[int, Link] = WeakValueDictionary()


class Link:
    """The group over which the split layers of one module sum; all of them hold the same link."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.number = next(_numbers)
        _links[self.number] = self

    def all_reduce(self, partial: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if torch.compiler.is_compiling():
            torch.ops.ditplan.all_reduce(partial, self.number)
            return partial
        return self.group.all_reduce(partial)


@torch.library.custom_op("ditplan::all_reduce", mutates_args={"partial"})
def _all_reduce(partial: Tensor, link: int) -> None:
    """One node of a compiled graph: what is counted is what runs, not what is traced."""
    _links[link].group.all_reduce(partial)


def part_of(tensor: Tensor, dim: int, segments: Sequence[int], index: int, size: int) -> Tensor:
    """A rank's part of every segment of a dimension, side by side in memory of its own."""
    parts, start = [], 0
    for segment in segments:
        each = segment // size
        parts.append(tensor.narrow(dim, start + index * each, each))
        start += segment
    return torch.cat(parts, dim=dim)


class RowLinear(nn.Linear):
    """Split by inputs: the ranks' results are summed, then the bias is added."""

    def __init__(self, linear: nn.Linear, segments: Sequence[int], link: Link) -> None:
        nn.Module.__init__(self)
        group = link.group
        self.in_features = linear.in_features // group.size
        self.out_features = linear.out_features
        self.weight = _parameter(linear.weight, 1, segments, group)
        self.bias = linear.bias
        self.link = link

    def forward(self, input: Tensor) -> Tensor:
        partial = functional.linear(input, self.weight).contiguous()
        total = self.link.all_reduce(partial)
        return total if self.bias is None else total + self.bias


class SplitRMSNorm(nn.Module):
    """Over the channels of all ranks; each has its own and gives the sum of their squares."""

    def __init__(self, norm: nn.RMSNorm, link: Link) -> None:
        super().__init__()
        (self.channels,) = norm.normalized_shape
        assert norm.eps is not None
        self.eps = norm.eps
        self.weight = _parameter(norm.weight, 0, [self.channels], link.group)
        self.link = link

    def forward(self, input: Tensor) -> Tensor:
        own = input.float()
        squares = self.link.all_reduce(own.square().sum(-1, keepdim=True))
        normed = own * torch.rsqrt(squares / self.channels + self.eps)
        return (normed * self.weight).type_as(input)


class SplitRotary(nn.Module):
    """Of a rotation for the channels of all heads that of this rank's."""

    def __init__(self, rotary: nn.Module, link: Link) -> None:
        super().__init__()
        self.rotary = rotary
        self.link = link

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        group = self.link.group
        return tuple(
            part_of(each, -1, [each.shape[-1]], group.index, group.size)
            for each in self.rotary(*args, **kwargs)
        )


def split_columns(linear: nn.Linear, segments: Sequence[int], group: Group) -> None:
    """Keeps of a layer this rank's outputs, in place."""
    linear.out_features //= group.size
    linear.weight = _parameter(linear.weight, 0, segments, group)
    if linear.bias is not None:
        linear.bias = _parameter(linear.bias, 0, segments, group)


def split_table(table: nn.Embedding, group: Group) -> None:
    """Keeps of a table the columns of this rank's heads, in place."""
    table.weight = _parameter(table.weight, 1, [table.embedding_dim], group)
    table.embedding_dim //= group.size


def _parameter(whole: Tensor, dim: int, segments: Sequence[int], group: Group) -> nn.Parameter:
    part = part_of(whole.detach(), dim, segments, group.index, group.size)
    return nn.Parameter(part, requires_grad=whole.requires_grad)
