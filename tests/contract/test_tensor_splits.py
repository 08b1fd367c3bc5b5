"""What ranks split of every family is what the planner counts as split."""

from __future__ import annotations

import pytest

from executor.parallel.tensor_families import FAMILIES
from planner.models.catalog import NAMED
from planner.models.facts import Target
from planner.models.layers import Split
from planner.models.resolve import from_name


def test_every_family_is_held_against_the_other_side() -> None:
    named = {target.transformer_class for name in NAMED for target in _targets(name)}
    assert named == set(FAMILIES)


@pytest.mark.parametrize("name", NAMED)
def test_the_same_layers_are_split_in_the_same_way(name: str) -> None:
    for target, shape in zip(_targets(name), from_name(name).shapes, strict=True):
        family = FAMILIES[target.transformer_class]
        assert list(family.blocks) == [listed.name for listed in target.block_lists]
        for layers, split in zip(shape.blocks, family.blocks.values(), strict=True):
            names = {linear.name for linear in layers.linears}
            here = dict.fromkeys(split.columns, Split.COLUMNS)
            here |= dict.fromkeys(split.rows, Split.ROWS)
            absent = (split.optional & here.keys()) - names
            assert {n: how for n, how in here.items() if n not in absent} == {
                linear.name: linear.split
                for linear in layers.linears
                if linear.split is not Split.NONE
            }
            # A norm is absent with the layers whose outputs it norms.
            norms = [n for n in split.norms if not (absent and n in split.optional)]
            assert sum(len(attention.normed) for attention in layers.attentions) == len(norms)


@pytest.mark.parametrize("name", NAMED)
def test_nothing_is_split_outside_of_blocks(name: str) -> None:
    for shape in from_name(name).shapes:
        assert {linear.split for linear in shape.rest.linears} == {Split.NONE}


def _targets(name: str) -> tuple[Target, ...]:
    return from_name(name).architecture.targets
