"""Loads a pipeline onto a device, once, before any work is taken."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from executor.engine.program import NATIVE
from executor.placement import attention, checkpoint
from executor.placement.checkpoint import Checkpoint
from executor.placement.compiling import compile_blocks, why_not_compiled
from executor.placement.device import (
    DeviceChoice,
    DtypeChoice,
    choose_device,
    choose_dtype,
    compute_capability,
    device_name,
)
from executor.placement.errors import PlacementError
from executor.placement.offload import RESIDENT, Offload, place
from executor.placement.placement import Placement
from executor.placement.quantization import (
    NOTHING,
    Quantization,
    QuantizedLayers,
    device_faults,
    missing_components,
)
from executor.placement.quantize import quantize
from executor.placement.quiet import silence_libraries
from executor.placement.split import WHOLE, Share

SOFTWARE = ("ditplan", "torch", "diffusers", "transformers")
TRUE = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline and the placement that it holds.

    ``layers``: those of the components that are quantized; ``offloaded``: the components that wait
    in the host's memory, as a whole or block by block. ``attention_backends``: what its device and
    packages can run, sorted; ``attention_faults``: why not the others.
    """

    pipeline: Any
    checkpoint: Checkpoint
    served_name: str
    device: torch.device
    device_name: str
    dtype: str
    versions: tuple[str, ...]
    share: Share = WHOLE
    quantization: Quantization = NOTHING
    layers: tuple[QuantizedLayers, ...] = ()
    compiled: bool = False
    offloaded: tuple[str, ...] = ()
    attention_backends: tuple[str, ...] = (NATIVE,)
    attention_faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def placement(self) -> Placement:
        return Placement(self.share.tp_size, self.share.encoders, self.quantization)


def load(
    model: str,
    *,
    served_name: str | None = None,
    device: DeviceChoice = DeviceChoice.AUTO,
    dtype: DtypeChoice = DtypeChoice.AUTO,
    device_index: int = 0,
    share: Share = WHOLE,
    quantization: Quantization = NOTHING,
    compiled: bool = False,
    offload: Offload = RESIDENT,
) -> LoadedPipeline:
    """Loads a diffusers checkpoint directory, or a hub name.

    Only safetensors weights are read and no code of the checkpoint is run. On the CPU two loads
    of one checkpoint compute bit-equal results.

    Raises:
        PlacementError: something is missing, unreadable or not supported; what the device cannot
            do is said before anything is loaded.
    """
    target = choose_device(device, device_index)
    precision = choose_dtype(dtype, target)
    _refuse(device_faults(quantization, compute_capability(target), precision))
    _refuse(offload.faults(target, compiled=compiled))
    _refuse(why_not_compiled(target) if compiled else [])
    silence_libraries()
    directory = resolve(model)
    found = checkpoint.inspect(directory)
    _refuse_unsupported(found)
    _refuse(missing_components(quantization, found.classes))
    pipeline = _from_pretrained(found, precision)
    _refuse_missing_weights(pipeline, found)
    if share != WHOLE:
        share.split(pipeline)
    if target.type == "cpu":
        _own_memory(pipeline)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    layers = quantize(pipeline, quantization, target)
    place(pipeline, target, offload)
    if compiled:
        compile_blocks(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    faults = attention.probe(target, precision)
    return LoadedPipeline(
        pipeline=pipeline,
        checkpoint=found,
        served_name=served_name or (str(directory) if Path(model).is_dir() else model),
        device=target,
        device_name=device_name(target),
        dtype=str(precision).removeprefix("torch."),
        versions=tuple(f"{name} {version(name)}" for name in SOFTWARE),
        share=share,
        quantization=quantization,
        layers=layers,
        compiled=compiled,
        offloaded=offload.components(found.classes),
        attention_backends=tuple(sorted(name for name, fault in faults.items() if not fault)),
        attention_faults={name: fault for name, fault in faults.items() if fault},
    )


def refuse_impossible(
    wanted: Quantization, device: torch.device, dtype: torch.dtype, components: Collection[str]
) -> None:
    """Raises PlacementError where components of that dtype cannot be quantized so on the device."""
    _refuse(device_faults(wanted, compute_capability(device), dtype))
    _refuse(missing_components(wanted, components))


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise PlacementError("; ".join(faults))


def resolve(model: str) -> Path:
    """The real directory of a model: itself, or where the hub's cache keeps it.

    Raises:
        PlacementError: neither a directory nor a hub name that can be had.
    """
    path = Path(model)
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or model.startswith(".") or model.count("/") != 1:
        raise PlacementError(f"{model}: no such directory")
    from diffusers import DiffusionPipeline

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE
    try:
        return Path(
            DiffusionPipeline.download(model, use_safetensors=True, local_files_only=offline)
        )
    except Exception as error:
        raise PlacementError(
            f"{model}: neither a directory nor a model that the hub gives"
            f"{' offline' if offline else ''}: {_first_line(error)}"
        ) from error


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


def _from_pretrained(found: Checkpoint, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    from executor.placement.processor import PictureProcessor

    directory = found.directory
    try:
        processors = {
            name: PictureProcessor.from_pretrained(str(directory / name), local_files_only=True)
            for name, class_name in found.classes.items()
            if class_name == "Qwen2VLProcessor"
        }
        return DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            str(directory), dtype=dtype, use_safetensors=True, local_files_only=True, **processors
        )
    except Exception as error:
        # Whatever a library raises here is about the checkpoint: there is nothing else yet.
        raise PlacementError(
            f"{directory}: cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _refuse_missing_weights(pipeline: Any, found: Checkpoint) -> None:
    """Diffusers fills missing weights with random ones and only warns.

    Text encoders are left out: transformers ties and renames weights while loading.
    """
    from diffusers import ModelMixin

    for component, stored in found.tensors.items():
        module = getattr(pipeline, component, None)
        if not isinstance(module, torch.nn.Module) or not isinstance(module, ModelMixin):
            continue
        missing = sorted(module.state_dict().keys() - stored)
        if missing:
            raise PlacementError(
                f"{found.directory / component}: {len(missing)} weights are missing, "
                f"e.g. {missing[0]}"
            )


def _own_memory(pipeline: Any) -> None:
    """Copies memory-mapped weights: their alignment changes the last bits of matrix products."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            for tensor in (*component.parameters(), *component.buffers()):
                tensor.data = tensor.data.clone()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
