"""What a plan wants of the executor that runs it, and whether this one has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from executor.engine.program import NATIVE
from executor.parallel.partial import merge_fault
from executor.parallel.vae import VAE
from executor.placement.load import LoadedPipeline
from executor.placement.placement import UNSHARED, Placement


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
    placement: Placement = UNSHARED
    attention_backend: str = NATIVE
    ring_size: int = 1
    ring_rotate_method: str = ""


def differences(loaded: LoadedPipeline, wanted: Requirements) -> list[str]:
    """What keeps this executor from running the plan, each in words; nothing where it fits."""
    return lasting_differences(loaded, wanted) + _placement_differences(loaded, wanted.placement)


def lasting_differences(loaded: LoadedPipeline, wanted: Requirements) -> list[str]:
    """Of those the ones that loading the model anew would not settle."""
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
    return found + list(_attention_differences(loaded, wanted))


def _placement_differences(loaded: LoadedPipeline, needed: Placement) -> list[str]:
    held, found = loaded.placement, []
    if needed.tp_size != held.tp_size:
        found.append(
            f"the plan splits tensors over {needed.tp_size} ranks, the executor over {held.tp_size}"
        )
    if needed.encoders != held.encoders:
        found.append(
            f"the plan shares {', '.join(needed.encoders) or 'no text encoder'}, "
            f"the executor {', '.join(held.encoders) or 'none'}"
        )
    if needed.quantization != held.quantization:
        ours, theirs = str(held.quantization), str(needed.quantization)
        if ours == theirs:
            found.append("the plan excludes other layers from quantization than the executor")
        else:
            found.append(
                f"the plan wants {theirs or 'no quantization'}, "
                f"the executor holds {ours or loaded.dtype}"
            )
    return found


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
