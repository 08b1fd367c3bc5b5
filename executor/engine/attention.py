"""The attention backend of a run.

It is set on the processors of the attention modules for as long as the run is attached: what
diffusers would choose without one (the environment of the host, or whatever another part of the
process chose last) has no say in a run.

Attention modules without such a processor keep PyTorch's own attention whatever the plan says: of
the supported families only the refiners of the prompt in HunyuanVideo and HunyuanVideo 1.5, which
attend to a prompt once a forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def attending(targets: Iterable[nn.Module], backend: str) -> Iterator[None]:
    """Has all attention of the targets that goes through diffusers' dispatcher use one backend.

    Raises:
        ValueError: diffusers has no backend of that name.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName

    with carrying(_processors(targets), {"_attention_backend": AttentionBackendName(backend)}):
        yield


@contextmanager
def carrying(objects: Sequence[Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Gives different objects attributes of their own for a while."""
    before = [{name: vars(each)[name] for name in values if name in vars(each)} for each in objects]
    for each in objects:
        vars(each).update(values)
    try:
        yield
    finally:
        for each, own in zip(objects, before, strict=True):
            for name in values:
                del vars(each)[name]
            vars(each).update(own)


def _processors(targets: Iterable[nn.Module]) -> list[Any]:
    """Each once, however many modules share it."""
    found = {}
    for target in targets:
        for module in target.modules():
            # Asked for by its name, a module without one looks in three places and raises.
            processor = vars(module).get("processor", module._modules.get("processor"))
            if hasattr(processor, "_attention_backend"):
                found[id(processor)] = processor
    return list(found.values())
