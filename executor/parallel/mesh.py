"""The ranks of a run as a mesh: row-major in the order ring, ulysses, tp."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from executor.engine.program import Topology
from executor.parallel.wire import Group, Ledger

Sizes = tuple[int, int, int]
"""ring, ulysses, tp"""


MESH_GROUPS = ("ring", "ulysses", "tp", "sequence", "model")


@dataclass(frozen=True, slots=True)
class Mesh:
    """One rank's groups.

    ``sequence`` are the ranks that share a sequence: ring x ulysses, in that order. ``model``: all
    ranks of a run.
    """

    ring: Group
    ulysses: Group
    tp: Group
    sequence: Group
    model: Group


@dataclass(slots=True)
class World:
    """The ranks that hold one placement, connected: gloo on the CPU, NCCL on CUDA devices."""

    rank: int
    size: int
    device: torch.device
    timeout: timedelta
    ledger: Ledger = field(default_factory=Ledger)
    _meshes: dict[Sizes, Mesh] = field(default_factory=dict)

    def mesh(self, topology: Topology) -> Mesh:
        """The mesh of a topology; the first time, all ranks must ask for it together.

        Raises:
            ValueError: the topology is not of this many ranks.
        """
        sizes = topology.ring_size, topology.ulysses_size, topology.tp_size
        if topology.world_size != self.size:
            raise ValueError(f"{topology.world_size} ranks are planned, there are {self.size}")
        if sizes not in self._meshes:
            self._meshes[sizes] = self._form(*sizes)
        return self._meshes[sizes]

    def forget(self) -> None:
        """Lets go of every mesh."""
        for mesh in self._meshes.values():
            for group in (mesh.ring, mesh.ulysses, mesh.tp, mesh.sequence, mesh.model):
                group.close()
        self._meshes.clear()

    def _form(self, ring: int, ulysses: int, tp: int) -> Mesh:
        def rank_at(r: int, u: int, t: int) -> int:
            return (r * ulysses + u) * tp + t

        rings, columns, splits = range(ring), range(ulysses), range(tp)
        return Mesh(
            ring=self._group(
                "ring", [[rank_at(r, u, t) for r in rings] for u, t in product(columns, splits)]
            ),
            ulysses=self._group(
                "ulysses", [[rank_at(r, u, t) for u in columns] for r, t in product(rings, splits)]
            ),
            tp=self._group(
                "tp", [[rank_at(r, u, t) for t in splits] for r, u in product(rings, columns)]
            ),
            sequence=self._group(
                "sequence",
                [[rank_at(r, u, t) for r, u in product(rings, columns)] for t in splits],
            ),
            model=self._group("model", [list(range(self.size))]),
        )

    def _group(self, name: str, parts: list[list[int]]) -> Group:
        """The part that holds this rank; every rank forms every part, in one order."""
        found: Group | None = None
        for ranks in parts:
            handle = None
            if len(ranks) > 1:
                handle = dist.new_group(ranks, timeout=self.timeout)
            if self.rank in ranks:
                found = Group(name, ranks, ranks.index(self.rank), handle, self.ledger)
        assert found is not None
        return found


@contextmanager
def connected(
    store: Store, rank: int, size: int, device: torch.device, timeout: timedelta
) -> Iterator[World]:
    """Connects the ranks that meet in a store; every formation needs a store (or prefix) of its
    own. Leaving disconnects this rank: what the others have begun with it fails.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    world = World(rank, size, device, timeout)
    try:
        yield world
    except BaseException as error:
        # Connections are closed only once nothing holds their group: no frame either.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        world.forget()
        dist.destroy_process_group()
