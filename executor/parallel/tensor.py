"""Tensor parallelism as placement: every rank keeps its part of the weights of every block.

The module's forward gives on every rank what it gave before, for the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from executor.parallel.tensor_families import FAMILIES, BlockSplit, FamilySplit, Segments
from executor.parallel.tensor_layers import (
    Link,
    RowLinear,
    SplitRMSNorm,
    SplitRotary,
    split_columns,
    split_table,
)
from executor.parallel.wire import Group

# What attentions call their heads, and the channels that follow from how many they have.
_HEADS = ("heads", "sliceable_head_dim", "n_heads", "num_heads", "num_key_value_heads")
_WIDTHS = ("inner_dim", "inner_kv_dim", "kv_inner_dim", "mlp_hidden_dim")


class NotSplittableError(ValueError):
    """A module that so many ranks cannot share."""


def split_tensors(module: nn.Module, group: Group) -> None:
    """Leaves a transformer with this rank's part of its blocks' weights: in place, once, before
    anything else is made of them.

    Raises:
        NotSplittableError: of what is split something does not divide; the module is as before.
    """
    family = _family(module)
    link = split_blocks(_blocks(module, family), group)
    if link is not None and family.rotary is not None:
        rotary = module.get_submodule(family.rotary)
        module.set_submodule(family.rotary, SplitRotary(rotary, link))


def check_tensors(module: nn.Module, size: int) -> None:
    """Raises NotSplittableError where so many ranks could not share a transformer."""
    check_blocks(_blocks(module, _family(module)), size)


def _family(module: nn.Module) -> FamilySplit:
    name = type(module).__name__
    family = FAMILIES.get(name)
    if family is None:
        raise NotSplittableError(f"{name}: no split is known; known: {', '.join(FAMILIES)}")
    return family


def _blocks(module: nn.Module, family: FamilySplit) -> list[tuple[str, nn.Module, BlockSplit]]:
    return [
        (f"{listed}.{i}", block, split)
        for listed, split in family.blocks.items()
        for i, block in enumerate(module.get_submodule(listed).children())
    ]


def split_blocks(blocks: Iterable[tuple[str, nn.Module, BlockSplit]], group: Group) -> Link | None:
    """Splits named blocks, which share one link; None for a group of one, which shares nothing.

    Raises:
        NotSplittableError: something does not divide; no block has been changed.
    """
    if group.size == 1:
        return None
    found = check_blocks(blocks, group.size)
    link = Link(group)
    for block in found:
        block.split(link)
    return link


def check_blocks(blocks: Iterable[tuple[str, nn.Module, BlockSplit]], size: int) -> list[_Block]:
    """The blocks, of which each divides by so many ranks.

    Raises:
        NotSplittableError: something does not.
    """
    found = [_Block(name, block, split) for name, block, split in blocks]
    for block in found:
        block.check(size)
    return found


def reconnect(module: nn.Module, group: Group) -> None:
    """Makes a split module sum over another group, in which this rank has the same place.

    Raises:
        ValueError: it has another place there.
    """
    for layer in module.modules():
        link = getattr(layer, "link", None)
        if isinstance(link, Link):
            place, other = ((g.index, g.size) for g in (link.group, group))
            if place != other:
                raise ValueError(
                    f"the weights are part {place[0]} of {place[1]}, not {other[0]} of {other[1]}"
                )
            link.group = group


class _Block:
    """One block with what of its split it has."""

    def __init__(self, name: str, block: nn.Module, split: BlockSplit) -> None:
        self._name = name
        self._block = block
        self._split = split
        attention = self._attentions()[0]
        self._head_dim = _head_dim(attention)
        # Only attentions of diffusers, where fused layers need it, say how wide they are.
        self._width = getattr(attention, "inner_dim", 0)

    def check(self, size: int) -> None:
        for name, layer in self._layers(self._split.columns):
            self._check_layer(name, layer, self._split.columns[name], layer.out_features, size)
        for name, layer in self._layers(self._split.rows):
            self._check_layer(name, layer, self._split.rows[name], layer.in_features, size)

    def _check_layer(
        self, name: str, layer: nn.Linear, segments: Segments, channels: int, size: int
    ) -> None:
        where = f"{self._name}.{name}"
        if isinstance(layer, RowLinear):
            raise NotSplittableError(f"{where} is split already")
        sizes = segments.sizes(channels, self._width)
        for i, segment in enumerate(sizes):
            heads = segment // self._head_dim
            if i < segments.heads and heads % size:
                raise NotSplittableError(f"{where}: {heads} heads do not divide by {size} ranks")
            if segment % size:
                raise NotSplittableError(
                    f"{where}: {segment} channels do not divide by {size} ranks"
                )

    def split(self, link: Link) -> None:
        group, split = link.group, self._split
        for name, layer in self._layers(split.columns):
            sizes = split.columns[name].sizes(layer.out_features, self._width)
            split_columns(layer, sizes, group)
        for name, layer in self._layers(split.rows):
            sizes = split.rows[name].sizes(layer.in_features, self._width)
            self._block.set_submodule(name, RowLinear(layer, sizes, link))
        for name, norm in self._layers(split.norms):
            self._block.set_submodule(name, SplitRMSNorm(norm, link))
        for _, table in self._layers(split.tables):
            split_table(table, group)
        for attention in self._attentions():
            for attribute in _HEADS + _WIDTHS:
                if isinstance(whole := getattr(attention, attribute, None), int):
                    setattr(attention, attribute, whole // group.size)

    def _attentions(self) -> list[nn.Module]:
        return [attention for _, attention in self._layers(self._split.attentions)]

    def _layers(self, names: Iterable[str]) -> list[tuple[str, Any]]:
        """Of the named modules those that this block has; without the others there is no such
        block.
        """
        present = dict(self._block.named_modules())
        return [
            (name, self._block.get_submodule(name))
            for name in names
            if name in present or name not in self._split.optional
        ]


def _head_dim(attention: Any) -> int:
    for attribute in ("head_dim", "key_value_proj_dim"):
        if hasattr(attention, attribute):
            return int(getattr(attention, attribute))
    return int(attention.inner_dim) // int(attention.heads)
