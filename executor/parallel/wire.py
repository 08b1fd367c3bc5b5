"""Every collective that ranks take part in, counted: nothing else in the executor calls one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Collective(Enum):
    ALL_TO_ALL = "all_to_all"
    SEND_RECV = "send_recv"
    ALL_GATHER = "all_gather"
    ALL_REDUCE = "all_reduce"
    DECISION = "decision"
    """The all-reduce that decides between computing and caching."""


@dataclass(frozen=True, slots=True)
class Count:
    """``bytes`` that this rank sent to others; of an all-reduce, that it put into the sum."""

    calls: int = 0
    bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.calls + other.calls, self.bytes + other.bytes)

    def __sub__(self, other: Count) -> Count:
        return Count(self.calls - other.calls, self.bytes - other.bytes)


Key = tuple[Collective, str]
"""A kind of collective, and the name of the group that it runs in."""


@dataclass(slots=True)
class Ledger:
    """What this rank has exchanged so far."""

    counts: dict[Key, Count] = field(default_factory=dict)

    def add(self, kind: Collective, group: str, nbytes: int) -> None:
        key = kind, group
        self.counts[key] = self.counts.get(key, Count()) + Count(1, nbytes)

    def since(self, before: dict[Key, Count]) -> dict[Key, Count]:
        """What was added to an earlier copy of ``counts``."""
        added = {key: count - before.get(key, Count()) for key, count in self.counts.items()}
        return {key: count for key, count in added.items() if count.calls}


Wait = Callable[[], None]
"""Returns once a collective that was begun has ended."""


class Group:
    """Ranks that exchange tensors, in the order of their index; one rank alone exchanges nothing.

    Tensors are contiguous and on the device of the world.
    """

    def __init__(
        self, name: str, ranks: Sequence[int], index: int, handle: Any, ledger: Ledger
    ) -> None:
        self.name = name
        self.ranks = tuple(ranks)
        self.index = index
        self._process_group = handle
        self._ledger = ledger

    @property
    def size(self) -> int:
        return len(self.ranks)

    def named(self, name: str) -> Group:
        """The same ranks, counted under another name."""
        return Group(name, self.ranks, self.index, self._process_group, self._ledger)

    def close(self) -> None:
        """No collective can be begun any more."""
        self._process_group = None

    @property
    def _handle(self) -> Any:
        # Torch would take None for the group of all processes.
        if self._process_group is None:
            raise RuntimeError(f"the {self.name} group of ranks {self.ranks} is closed")
        return self._process_group

    def all_to_all(
        self, send: Tensor, send_sizes: Sequence[int], receive_sizes: Sequence[int]
    ) -> tuple[Tensor, Wait]:
        """Parts of a flat tensor to every rank, and theirs in return: begun, to be waited for.

        Sizes are elements by rank.
        """
        sent = sum(send_sizes) - send_sizes[self.index]
        self._ledger.add(Collective.ALL_TO_ALL, self.name, sent * send.element_size())
        received = send.new_empty(sum(receive_sizes))
        work = dist.all_to_all_single(
            received,
            send,
            list(receive_sizes),
            list(send_sizes),
            group=self._handle,
            async_op=True,
        )
        return received, work.wait

    def rotate(self, send: Tensor, receive_size: int) -> tuple[Tensor, Wait]:
        """A flat tensor to the next rank, and one of the previous in return: begun."""
        self._ledger.add(Collective.SEND_RECV, self.name, send.nbytes)
        received = send.new_empty(receive_size)
        following, previous = (self.ranks[(self.index + by) % self.size] for by in (1, -1))
        works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, send, following, self._handle),
                dist.P2POp(dist.irecv, received, previous, self._handle),
            ]
        )

        def wait() -> None:
            for work in works:
                work.wait()

        return received, wait

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Tensors of one shape, stacked by rank: (size, *shape)."""
        self._ledger.add(Collective.ALL_GATHER, self.name, tensor.nbytes * (self.size - 1))
        gathered = tensor.new_empty(self.size * tensor.numel())
        dist.all_gather_single(gathered, tensor.view(-1), group=self._handle)
        return gathered.view(self.size, *tensor.shape)

    def all_reduce(self, tensor: Tensor, kind: Collective = Collective.ALL_REDUCE) -> Tensor:
        """The sum over the ranks, in place."""
        if self.size > 1:
            self._ledger.add(kind, self.name, tensor.nbytes)
            dist.all_reduce(tensor, group=self._handle)
        return tensor


def shares(count: int, ranks: int) -> list[int]:
    """How so many things are shared: as evenly as possible, the first ranks get one more."""
    each, more = divmod(count, ranks)
    return [each + (rank < more) for rank in range(ranks)]


def share_of(tensor: Tensor, dim: int, lengths: Sequence[int], index: int) -> Tensor:
    """One rank's part of a dimension, contiguous."""
    return tensor.narrow(dim, sum(lengths[:index]), lengths[index]).contiguous()


def padded(tensor: Tensor, dim: int, length: int) -> Tensor:
    """The tensor with room at the end of a dimension, whose content is not defined."""
    missing = length - tensor.shape[dim]
    if not missing:
        return tensor.contiguous()
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)
