"""What ranks share from the load on: the tensors of transformers and of text encoders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from executor.parallel.mesh import Mesh
from executor.parallel.tensor import NotSplittableError, reconnect, split_tensors
from executor.parallel.text_encoders import split_text_encoder
from executor.parallel.wire import Group, Ledger
from executor.placement.errors import PlacementError

TRANSFORMERS = ("transformer", "transformer_2")


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's part of a placement: of transformers among ``tp_size`` neighbours, of the text
    encoders that are named among all ranks.
    """

    rank: int = 0
    world_size: int = 1
    tp_size: int = 1
    encoders: tuple[str, ...] = ()

    def split(self, pipeline: Any) -> None:
        """Leaves a pipeline with this part. It runs once `connect` has said with whom.

        Raises:
            PlacementError: so many ranks cannot share a part of it.
        """
        for name, module in _modules(pipeline, TRANSFORMERS):
            try:
                split_tensors(module, self._neighbours())
            except NotSplittableError as error:
                raise PlacementError(f"--tp-size {self.tp_size}: {name}: {error}") from None
        present = dict(_modules(pipeline, self.encoders))
        for name in self.encoders:
            if name not in present:
                raise PlacementError(f"--extra-parallel-modules: the pipeline has no {name}")
            try:
                split_text_encoder(present[name], self._everyone())
            except NotSplittableError as error:
                raise PlacementError(f"--extra-parallel-modules: {name}: {error}") from None

    def connect(self, pipeline: Any, mesh: Mesh) -> None:
        """Has the parts sum over the groups of a mesh."""
        for _, module in _modules(pipeline, TRANSFORMERS):
            reconnect(module, mesh.tp)
        for name, module in _modules(pipeline, self.encoders):
            reconnect(module, mesh.model.named(name))

    def disconnect(self, pipeline: Any) -> None:
        """Lets go of those groups, whose connections nothing may hold when they are to close."""
        for _, module in _modules(pipeline, TRANSFORMERS):
            reconnect(module, self._neighbours())
        for _, module in _modules(pipeline, self.encoders):
            reconnect(module, self._everyone())

    def _neighbours(self) -> Group:
        first = self.rank - self.rank % self.tp_size
        return _apart(range(first, first + self.tp_size), self.rank)

    def _everyone(self) -> Group:
        return _apart(range(self.world_size), self.rank)


# What one rank holds.
WHOLE = Share()


def _modules(pipeline: Any, names: Iterable[str]) -> list[tuple[str, nn.Module]]:
    """Those of the named components that are there."""
    found = [(name, getattr(pipeline, name, None)) for name in names]
    return [(name, module) for name, module in found if isinstance(module, nn.Module)]


def _apart(ranks: range, rank: int) -> Group:
    """A group that says who holds which part and cannot exchange anything."""
    return Group("apart", ranks, ranks.index(rank), None, Ledger())
