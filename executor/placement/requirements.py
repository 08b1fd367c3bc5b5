"""What a plan wants of the executor that runs it, and whether this one has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from executor.engine.program import NATIVE
from executor.parallel.partial import merge_fault
from executor.placement.load import LoadedPipeline

VAE = "vae"


@dataclass(frozen=True, slots=True)
class TargetRequirement:
    """A transformer by its attribute on the pipeline, with the blocks of each of its lists."""

    name: str
    transformer_class: str
    block_lists: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Requirements:
    """The part of a plan that is settled before its first step."""

    pipeline_class: str
    targets: tuple[TargetRequirement, ...]
    world_size: int
    tp_size: int = 1
    extra_parallel_modules: tuple[str, ...] = ()
    quant_type: str = ""
    attention_backend: str = NATIVE
    ring_size: int = 1
    ring_rotate_method: str = ""


def differences(loaded: LoadedPipeline, wanted: Requirements) -> list[str]:
    """What keeps this executor from running the plan, each in words; nothing where it fits."""
    found = []
    if wanted.pipeline_class != loaded.checkpoint.pipeline_class:
        found.append(
            f"the plan is for {wanted.pipeline_class}, "
            f"the executor holds {loaded.checkpoint.pipeline_class}"
        )
    for target in wanted.targets:
        found += _target_differences(loaded.pipeline, target)
    if wanted.world_size != loaded.share.world_size:
        found.append(
            f"the plan is for {wanted.world_size} ranks, the executor has {loaded.share.world_size}"
        )
    if wanted.tp_size != loaded.share.tp_size:
        found.append(
            f"the plan splits tensors over {wanted.tp_size} ranks, the executor over "
            f"{loaded.share.tp_size}"
        )
    shared, held = shared_encoders(wanted.extra_parallel_modules), loaded.share.encoders
    if shared != held:
        found.append(
            f"the plan shares {', '.join(shared) or 'no text encoder'}, "
            f"the executor {', '.join(held) or 'none'}"
        )
    if wanted.quant_type:
        found.append(
            f"the plan wants {wanted.quant_type} weights, the executor holds {loaded.dtype}"
        )
    return found + list(_attention_differences(loaded, wanted))


def shared_encoders(extra_parallel_modules: Iterable[str]) -> tuple[str, ...]:
    """Those that are split when they are loaded; the VAE is shared run by run."""
    return tuple(sorted(set(extra_parallel_modules) - {VAE}))


def _attention_differences(loaded: LoadedPipeline, wanted: Requirements) -> Iterator[str]:
    backend = wanted.attention_backend
    if backend not in loaded.attention_backends:
        fault = loaded.attention_faults.get(backend, "it is unknown here")
        yield f"the plan wants attention backend {backend}, which this executor cannot run: {fault}"
    unmerged = merge_fault(wanted.ring_size, wanted.ring_rotate_method, backend)
    if unmerged is not None:
        yield unmerged


def _target_differences(pipeline: Any, target: TargetRequirement) -> list[str]:
    transformer = getattr(pipeline, target.name, None)
    held = type(transformer).__name__ if transformer is not None else "nothing"
    if held != target.transformer_class:
        return [f"the plan's {target.name} is {target.transformer_class}, here it is {held}"]
    found = []
    for name, num_blocks in target.block_lists:
        blocks = len(getattr(transformer, name, ()))
        if blocks != num_blocks:
            found.append(f"the plan has {num_blocks} {target.name}.{name}, here are {blocks}")
    return found
