"""The ranks of a run as a mesh: row-major in the order guidance, ring, ulysses, tp."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import timedelta
from itertools import product

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from executor.engine.program import Topology
from executor.parallel.wire import Group, Ledger

Sizes = tuple[int, int, int, int]
"""guidance, ring, ulysses, tp"""

MESH_GROUPS = ("guidance", "ring", "ulysses", "tp", "sequence", "branch")


@dataclass(frozen=True, slots=True)
class Mesh:
    """One rank's groups.

    ``sequence`` are the ranks that share a sequence: ring x ulysses, in that order. ``branch``:
    those that share a forward, ring x ulysses x tp; ``model``: all ranks of a run.
    """

    guidance: Group
    ring: Group
    ulysses: Group
    tp: Group
    sequence: Group
    branch: Group
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
        sizes = (
            topology.guidance_size,
            topology.ring_size,
            topology.ulysses_size,
            topology.tp_size,
        )
        if topology.world_size != self.size:
            raise ValueError(f"{topology.world_size} ranks are planned, there are {self.size}")
        if sizes not in self._meshes:
            self._meshes[sizes] = self._form(*sizes)
        return self._meshes[sizes]

    def forget(self) -> None:
        """Lets go of every mesh."""
        for mesh in self._meshes.values():
            for each in fields(mesh):
                getattr(mesh, each.name).close()
        self._meshes.clear()

    def _form(self, *sizes: int) -> Mesh:
        axes = ("guidance", "ring", "ulysses", "tp")
        places = list(product(*map(range, sizes)))

        def group(name: str, *along: str) -> Group:
            """The ranks that differ in their places along some axes only."""
            parts: dict[tuple[int, ...], list[int]] = {}
            for rank, place in enumerate(places):
                fixed = tuple(at for axis, at in zip(axes, place, strict=True) if axis not in along)
                parts.setdefault(fixed, []).append(rank)
            return self._group(name, list(parts.values()))

        model = group("model", *axes)
        return Mesh(
            guidance=group("guidance", "guidance"),
            ring=group("ring", "ring"),
            ulysses=group("ulysses", "ulysses"),
            tp=group("tp", "tp"),
            sequence=group("sequence", "ring", "ulysses"),
            branch=group("branch", *axes[1:]) if sizes[0] > 1 else model.named("branch"),
            model=model,
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
