"""The ranks of one run, as the engine sees them from one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from executor.engine.program import Topology
from executor.engine.sharing import Exchanges
from executor.parallel.mesh import MESH_GROUPS, World
from executor.parallel.sequence import SharedGroup
from executor.parallel.vae import VAE, shared_vae
from executor.parallel.wire import Collective, Group


class Sharing:
    """A run under a topology in a world of as many ranks; to be made by all of them together.

    Raises:
        ValueError: the world has another number of ranks.
    """

    def __init__(self, world: World, topology: Topology) -> None:
        self._topology = topology
        self._mesh = world.mesh(topology)
        self._ledger = world.ledger
        self._before = dict(world.ledger.counts)

    @property
    def exchanges(self) -> Exchanges:
        counts = self._ledger.since(self._before)
        return {
            (kind.value, group): (count.calls, count.bytes)
            for (kind, group), count in counts.items()
            if group in MESH_GROUPS
        }

    @property
    def halves(self) -> Group | None:
        return self._mesh.guidance if self._mesh.guidance.size > 1 else None

    @property
    def shares_forwards(self) -> bool:
        return self._mesh.branch.size > 1

    @contextmanager
    def attached(self, pipeline: Any) -> Iterator[None]:
        if VAE not in self._topology.extra_parallel_modules:
            yield
            return
        with shared_vae(pipeline.vae, self._mesh.model.named(VAE)):
            yield

    def group(
        self, target: nn.Module, block_lists: Sequence[str], attention_backend: str
    ) -> SharedGroup | None:
        if self._mesh.sequence.size == 1:
            return None
        return SharedGroup(target, block_lists, self._mesh, self._topology, attention_backend)

    def residual_diff(self, reference: Tensor, change: Tensor) -> float:
        """The DBCache test of Cache-DiT over all tokens: one small all-reduce.

        Sums rather than means of the ranks, whose shares may differ; means in the model's dtype, as
        one process has them.
        """
        sums = torch.stack(
            [
                (reference - change).abs_().sum(dtype=torch.float32).double(),
                reference.abs().sum(dtype=torch.float32).double(),
                torch.tensor(reference.numel(), dtype=torch.float64, device=reference.device),
            ]
        )
        self._mesh.branch.all_reduce(sums, Collective.DECISION)
        difference, mean = (sums[:2] / sums[2]).to(reference.dtype)
        return float(difference / mean)
