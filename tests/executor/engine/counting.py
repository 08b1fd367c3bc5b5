"""What a stretch of code asks of host and memory, counted below PyTorch's dispatcher."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counting(TorchDispatchMode):
    """Counts values read by the host and bytes of new tensors while it is entered.

    A tensor that shares the memory of an argument is not new. Memory that a kernel takes and
    gives back within is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host_reads = 0
        self.allocated_bytes = 0
        self._new: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._local_scalar_dense.default:
            self.host_reads += 1
        known = {_memory(tensor) for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(output):
            if _memory(tensor) not in known:
                self.allocated_bytes += tensor.untyped_storage().nbytes()
                self._new.append(weakref.ref(tensor))
        return output

    @property
    def held_bytes(self) -> int:
        """Bytes of the new tensors that are still alive."""
        alive = {_memory(tensor): tensor for ref in self._new if (tensor := ref()) is not None}
        return sum(tensor.untyped_storage().nbytes() for tensor in alive.values())


def counted(call: Callable[[], object]) -> tuple[int, int, int]:
    """Host reads of a call, bytes it allocated, and bytes of them that outlive it."""
    with Counting() as counting:
        call()
    return counting.host_reads, counting.allocated_bytes, counting.held_bytes


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
