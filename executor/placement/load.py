"""Loads a pipeline onto a device, once, before any work is taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from executor.placement import checkpoint
from executor.placement.checkpoint import Checkpoint
from executor.placement.device import (
    DeviceChoice,
    DtypeChoice,
    choose_device,
    choose_dtype,
    device_name,
)
from executor.placement.errors import PlacementError
from executor.placement.hub import resolve, resolve_adapter
from executor.placement.lora import Adapter, fuse, inspect_adapter
from executor.placement.pipeline import read_pipeline
from executor.placement.quiet import silence_libraries
from executor.placement.split import WHOLE, Share

SOFTWARE = ("ditplan", "torch", "diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline that holds its placement until the process ends.

    ``unused`` says which of the stored weights it has no use for.
    """

    pipeline: Any
    checkpoint: Checkpoint
    served_name: str
    device: str
    device_name: str
    dtype: str
    versions: tuple[str, ...]
    share: Share = WHOLE
    unused: tuple[str, ...] = ()


def load(
    model: str,
    *,
    served_name: str | None = None,
    device: DeviceChoice = DeviceChoice.AUTO,
    dtype: DtypeChoice = DtypeChoice.AUTO,
    device_index: int = 0,
    revision: str | None = None,
    variant: str | None = None,
    lora: str | None = None,
    lora_scale: float = 1.0,
    share: Share = WHOLE,
) -> LoadedPipeline:
    """Loads a diffusers checkpoint directory, or a hub name, of which ``revision`` pins a state.

    Of a ``variant``, such as fp16, is every component that has weights of it. ``lora`` is fused
    into them, so what is served needs a name of its own.

    Only safetensors weights are read and no code of the checkpoint is run. On the CPU two loads
    of one checkpoint compute bit-equal results.

    Raises:
        PlacementError: something is missing, unreadable or not supported.
    """
    target = choose_device(device, device_index)
    precision = choose_dtype(dtype, target)
    silence_libraries()
    directory = resolve(model, revision=revision, variant=variant)
    found = checkpoint.inspect(directory, variant)
    _refuse_unsupported(found)
    adapter = None if lora is None else Adapter(resolve_adapter(lora), lora_scale)
    if adapter is not None:
        inspect_adapter(adapter, found)
        found = replace(found, adapter=adapter.digest)
    pipeline, unused = read_pipeline(found, precision)
    if adapter is not None:
        fuse(pipeline, adapter)
    if share != WHOLE:
        share.split(pipeline)
    if target.type == "cpu":
        _own_memory(pipeline)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    pipeline.to(target)
    pipeline.set_progress_bar_config(disable=True)
    return LoadedPipeline(
        pipeline=pipeline,
        checkpoint=found,
        served_name=served_name or (str(directory) if Path(model).is_dir() else model),
        device=target.type,
        device_name=device_name(target),
        dtype=str(precision).removeprefix("torch."),
        versions=tuple(f"{name} {version(name)}" for name in SOFTWARE),
        share=share,
        unused=unused,
    )


def _refuse_unsupported(found: Checkpoint) -> None:
    from executor.engine.families import FAMILIES
    from executor.engine.pipelines import PIPELINES

    transformer = found.config("transformer/config.json").get("_class_name")
    known = isinstance(transformer, str) and transformer in FAMILIES
    if found.pipeline_class not in PIPELINES or not known:
        raise PlacementError(
            f"{found.directory}: {found.pipeline_class} with transformer {transformer} is not "
            f"supported; supported pipelines: {', '.join(sorted(PIPELINES))}"
        )


def _own_memory(pipeline: Any) -> None:
    """Copies memory-mapped weights: their alignment changes the last bits of matrix products."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            for tensor in (*component.parameters(), *component.buffers()):
                tensor.data = tensor.data.clone()
