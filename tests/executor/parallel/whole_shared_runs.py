"""Jobs for ranks: whole pipelines whose tokens are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from executor.engine.program import Topology
from executor.parallel.attention import SharedAttention, SharedTokens
from executor.parallel.mesh import World
from executor.parallel.sequence import SharedGroup
from executor.parallel.sharing import Sharing
from tests.executor.engine.whole_runs import Run, built, program_of, run_of

STRIP = "1010"


def run_whole(
    world: World, names: Sequence[tuple[str, bool]], topologies: Sequence[Topology]
) -> list[list[Run]]:
    """Every pipeline under every topology."""
    return [
        [
            run_of(
                built(name),
                name,
                guided,
                replace(program_of(name, guided, STRIP, fn=1, bn=1), topology=topology),
                Sharing(world, topology),
            )
            for topology in topologies
        ]
        for name, guided in names
    ]


def run_wrongly(world: World, name: str, guided: bool, topology: Topology, mistake: str) -> Run:
    """As above, with a mistake that a careless implementation makes."""
    with pytest.MonkeyPatch.context() as patch:
        if mistake == "padding is attended to":
            patch.setattr(SharedGroup, "_key_mask", lambda *_: None)
        if mistake == "every rank has the first positions":
            patch.setattr(SharedGroup, "_own", _first_positions(SharedGroup._own))
        if mistake == "ranks attend to their own tokens only":
            patch.setattr(SharedAttention, "__call__", _alone)
        [[run]] = run_whole(world, [(name, guided)], [topology])
    return run


def _first_positions(own: Any) -> Any:
    def shared(self: SharedGroup, value: Any, tokens: Any) -> Any:
        if getattr(tokens, "dim", None) == 1 and getattr(value, "ndim", 0) == 3:
            return own(self, value, tokens)
        index, self._ranks.index = self._ranks.index, 0
        try:
            return own(self, value, tokens)
        finally:
            self._ranks.index = index

    return shared


def _alone(self: SharedAttention, query: Tensor, key: Tensor, value: Tensor, scale: Any) -> Any:
    self.tokens = SharedTokens([])
    return self._local(query, key, value, scale)
