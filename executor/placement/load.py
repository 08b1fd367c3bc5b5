"""Loads a pipeline onto a device, once, before any work is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from executor.checkpoints import checkpoint
from executor.checkpoints.checkpoint import Checkpoint
from executor.checkpoints.hub import resolve, resolve_adapter
from executor.engine.program import NATIVE
from executor.errors import PlacementError
from executor.placement import attention
from executor.placement.compiling import compile_blocks, why_not_compiled
from executor.placement.device import (
    DeviceChoice,
    DtypeChoice,
    choose_device,
    choose_dtype,
    compute_capability,
    device_name,
)
from executor.placement.lora import Adapter, fuse, inspect_adapter
from executor.placement.offload import RESIDENT, Offload, place
from executor.placement.pipeline import read_pipeline
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

SOFTWARE = ("ditplan", "torch", "torchao", "diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline and the placement that it holds.

    ``unused`` says which of the stored weights it has no use for. ``layers``: those of the
    components that are quantized; ``offloaded``: the components that wait in the host's memory, as
    a whole or block by block. ``attention_backends``: what its device and packages can run, sorted;
    ``attention_faults``: why not the others.
    """

    pipeline: Any
    checkpoint: Checkpoint
    served_name: str
    device: torch.device
    device_name: str
    dtype: str
    versions: tuple[str, ...]
    share: Share = WHOLE
    unused: tuple[str, ...] = ()
    quantization: Quantization = NOTHING
    layers: tuple[QuantizedLayers, ...] = ()
    compiled: bool = False
    offloaded: tuple[str, ...] = ()
    attention_backends: tuple[str, ...] = (NATIVE,)
    attention_faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def placement(self) -> Placement:
        return Placement(self.share.tp_size, self.share.encoders, self.quantization)

    @property
    def unquantized(self) -> tuple[str, ...]:
        """Components that are to be quantized and in which no layer could be."""
        done = {each.component for each in self.layers if each.quant_type}
        asked = [name for name in self.checkpoint.classes if self.quantization.of(name)]
        return tuple(name for name in sorted(asked) if name not in done)


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
    quantization: Quantization = NOTHING,
    compiled: bool = False,
    offload: Offload = RESIDENT,
) -> LoadedPipeline:
    """Loads a diffusers checkpoint directory, or a hub name, of which ``revision`` pins a state.

    Of a ``variant``, such as fp16, is every component that has weights of it. ``lora`` is fused
    into them, so what is served needs a name of its own.

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
    directory = resolve(model, revision=revision, variant=variant)
    found = checkpoint.inspect(directory, variant)
    _refuse_unsupported(found)
    _refuse(missing_components(quantization, found.classes))
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
        unused=unused,
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
