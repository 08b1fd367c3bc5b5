"""Tensors that remember which tensors of a file they were made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves

# A number of each pair of factors, which is read out of its tensor.
NUMBER = ".alpha"


class Traced(torch.Tensor):
    """What is computed from it goes back to the same names."""

    names: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = super().__torch_function__(  # type: ignore[no-untyped-call]
            func, types, args, kwargs or {}
        )
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Traced)]
        names = frozenset[str]().union(*(tensor.names for tensor in taken))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Traced):
                leaf.names = leaf.names | names
        return result


def traced(file: Path) -> dict[str, Traced]:
    """The tensors of a safetensors file by name."""
    found = {}
    for name, tensor in load_file(file).items():
        found[name] = tensor.as_subclass(Traced)
        found[name].names = frozenset({name})
    return found


def unused(stored: Mapping[str, Traced], made: Mapping[str, torch.Tensor]) -> list[str]:
    """The names that went into nothing of what was made."""
    used = frozenset[str]().union(
        *(tensor.names for tensor in made.values() if isinstance(tensor, Traced))
    )
    scaled = {name.partition(".lora")[0] for name in used}
    return [name for name in stored if name not in used and name.removesuffix(NUMBER) not in scaled]
