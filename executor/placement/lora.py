"""An adapter of low rank, fused into the weights before anything else is done with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from executor.checkpoints.checkpoint import Checkpoint
from executor.checkpoints.weights import tensor_names
from executor.errors import PlacementError, one_line
from executor.placement.traced import traced, unused

NAME = "adapter"
# The two factors of a layer; a bias goes with the second one.
FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?:(?P<factor>[AB])\.weight|B\.bias)")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One file of weights and the factor they count with."""

    file: Path
    scale: float

    @property
    def digest(self) -> str:
        """Equal where the same is fused, wherever the file lies."""
        with self.file.open("rb") as stored:
            content = hashlib.file_digest(stored, "sha256").hexdigest()
        return f"{content} {self.scale!r}"


def inspect_adapter(adapter: Adapter, found: Checkpoint) -> None:
    """What can be said before the pipeline is loaded.

    Raises:
        PlacementError: the file cannot be read, or nothing can be fused into such a pipeline.
    """
    import diffusers

    if not isfinite(adapter.scale):
        raise _misfit(adapter, f"--lora-scale {adapter.scale} is no finite number")
    tensor_names(adapter.file)
    if not hasattr(getattr(diffusers, found.pipeline_class), "load_lora_weights"):
        raise _misfit(adapter, f"diffusers loads no LoRA into {found.pipeline_class}")
    if "transformer_2" in found.classes:
        raise _misfit(adapter, "the pipeline has two transformers, and a file does not say which")
    if find_spec("peft") is None:
        raise _misfit(adapter, "fusing needs peft: pip install 'ditplan[executor]'")


def fuse(pipeline: Any, adapter: Adapter) -> None:
    """Adds the adapter to the weights of the transformer, and of a text encoder it has some for.

    Raises:
        PlacementError: not every tensor of the file fits.
    """
    components = _require_fit(pipeline, adapter)
    try:
        pipeline.load_lora_weights(
            str(adapter.file.parent), weight_name=adapter.file.name, adapter_name=NAME
        )
        # Safe: refuses numbers that are none.
        pipeline.fuse_lora(components, lora_scale=adapter.scale, safe_fusing=True)
        pipeline.unload_lora_weights()
    except Exception as error:
        raise _misfit(adapter, f"cannot be fused: {one_line(error)}") from error


def _require_fit(pipeline: Any, adapter: Adapter) -> list[str]:
    """The components that the file has weights for. Diffusers passes over what does not fit."""
    stored = traced(adapter.file)
    try:
        converted = _of_peft(pipeline, pipeline.lora_state_dict(dict(stored)))
    except Exception as error:
        raise _misfit(
            adapter,
            f"no LoRA that diffusers reads for {type(pipeline).__name__}: "
            f"{type(error).__name__}: {one_line(error)}",
        ) from error
    factors: dict[str, dict[str, Tensor]] = {}
    strange = unused(stored, converted)
    for key, tensor in converted.items():
        match = FACTOR.fullmatch(key)
        if not match or _layer(pipeline, match["layer"]) is None:
            strange.append(key)
        elif match["factor"]:
            factors.setdefault(match["layer"], {})[match["factor"]] = tensor
    if strange:
        raise _misfit(
            adapter,
            f"{len(strange)} of its tensors do not belong to {type(pipeline).__name__}, "
            f"e.g. {min(strange)}",
        )
    if not factors:
        raise _misfit(adapter, "no tensors")
    for name, pair in factors.items():
        _require_shapes(pipeline, adapter, name, pair)
    return sorted({name.partition(".")[0] for name in factors})


def _of_peft(pipeline: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names that peft has for them, as diffusers makes them of its own older ones."""
    from transformers import PreTrainedModel

    layouts: Any = import_module("diffusers.utils.state_dict_utils")
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        component, _, name = key.partition(".")
        parts.setdefault(component, {})[name] = tensor
    for component, part in parts.items():
        if isinstance(getattr(pipeline, component, None), PreTrainedModel):
            part = layouts.convert_state_dict_to_diffusers(part)
            parts[component] = layouts.convert_state_dict_to_peft(part)
        elif "lora_A" not in next(iter(part)):
            parts[component] = layouts.convert_unet_state_dict_to_peft(part)
    return {
        f"{component}.{name}": tensor
        for component, part in parts.items()
        for name, tensor in part.items()
    }


def _require_shapes(pipeline: Any, adapter: Adapter, name: str, pair: Mapping[str, Tensor]) -> None:
    if len(pair) < 2:
        raise _misfit(adapter, f"{name} has only one of its two factors")
    down, up, weight = pair["A"].shape, pair["B"].shape, _layer(pipeline, name).weight.shape
    if down[0] != up[1] or (up[0], down[1]) != (weight[0], weight[1]):
        raise _misfit(
            adapter,
            f"{name} is {tuple(weight)} here, its factors are {tuple(up)} and {tuple(down)}",
        )


def _layer(pipeline: Any, name: str) -> Any:
    """The layer of that name, None where there is no such one with weights."""
    component, _, path = name.partition(".")
    model = getattr(pipeline, component, None)
    if component not in pipeline._lora_loadable_modules or not isinstance(model, nn.Module):
        return None
    if not hasattr(model, "text_model"):
        # What older versions of transformers had in between.
        path = path.removeprefix("text_model.")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    return module if isinstance(getattr(module, "weight", None), Tensor) else None


def _misfit(adapter: Adapter, problem: str) -> PlacementError:
    return PlacementError(f"--lora {adapter.file}: {problem}")
