"""What ranks share from the load on: the tensors of transformers and of text encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from executor.errors import PlacementError
from executor.parallel.mesh import Mesh
from executor.parallel.tensor import NotSplittableError, check_tensors, reconnect, split_tensors
from executor.parallel.text_encoders import check_text_encoder, split_text_encoder
from executor.parallel.wire import Group, Ledger

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
            with self._naming_transformer(name):
                split_tensors(module, self._neighbours())
        for name, module in self._encoders(pipeline):
            with _naming_encoder(name):
                split_text_encoder(module, self._everyone())

    def check(self, pipeline: Any, held: Share) -> None:
        """Whether another load could be split so, by a pipeline of which ``held`` is the part.

        Transformers that are split already, but otherwise, do not tell.

        Raises:
            PlacementError: so many ranks cannot share a part of it.
        """
        if self.world_size % self.tp_size:
            raise PlacementError(
                f"--tp-size {self.tp_size}: it does not divide the {self.world_size} ranks"
            )
        for name, module in _modules(pipeline, TRANSFORMERS) if held.tp_size == 1 else ():
            with self._naming_transformer(name):
                check_tensors(module, self.tp_size)
        for name, module in self._encoders(pipeline):
            if name not in held.encoders:
                with _naming_encoder(name):
                    check_text_encoder(module, self.world_size)

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

    def _encoders(self, pipeline: Any) -> list[tuple[str, nn.Module]]:
        present = _modules(pipeline, self.encoders)
        for name in self.encoders:
            if name not in dict(present):
                raise PlacementError(f"--extra-parallel-modules: the pipeline has no {name}")
        return present

    @contextmanager
    def _naming_transformer(self, name: str) -> Iterator[None]:
        try:
            yield
        except NotSplittableError as error:
            raise PlacementError(f"--tp-size {self.tp_size}: {name}: {error}") from None

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


@contextmanager
def _naming_encoder(name: str) -> Iterator[None]:
    try:
        yield
    except NotSplittableError as error:
        raise PlacementError(f"--extra-parallel-modules: {name}: {error}") from None


def _apart(ranks: range, rank: int) -> Group:
    """A group that says who holds which part and cannot exchange anything."""
    return Group("apart", ranks, ranks.index(rank), None, Ledger())
