"""Reads a pipeline from a checkpoint that has been looked over."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch

from executor.checkpoints.checkpoint import INDEX, Checkpoint
from executor.errors import PlacementError, one_line


def read_pipeline(found: Checkpoint, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """The pipeline on the CPU, and in words which of the stored weights it has no use for.

    Raises:
        PlacementError: a library cannot load it, or would have made weights up.
    """
    import diffusers

    from executor.placement.processor import PictureProcessor

    kind = getattr(diffusers, found.pipeline_class)
    taken = _taken(kind, found)
    parts: dict[str, Any] = {}
    unused = []
    for name in found.weights:
        if name not in taken:
            unused.append(f"{name}: {found.pipeline_class} has no such component")
            continue
        parts[name], extra = _read_model(found, name, dtype)
        if extra:
            unused.append(f"{name}: {_some(extra)}")
    try:
        for name, (_, class_name) in found.classes.items():
            if class_name == "Qwen2VLProcessor":
                parts[name] = PictureProcessor.from_pretrained(
                    str(found.directory / name), local_files_only=True
                )
        # Of its own class: the base class would load some of the parts a second time.
        pipeline = kind.from_pretrained(str(found.directory), local_files_only=True, **parts)
    except Exception as error:
        raise _cannot_load(found.directory, error) from error
    return pipeline, tuple(unused)


def _read_model(found: Checkpoint, name: str, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """A model, and its stored weights that it does not have."""
    directory = found.directory / name
    library, class_name = found.classes[name]
    kind = getattr(importlib.import_module(library), class_name, None)
    if kind is None:
        raise PlacementError(f"{directory}: {library} has no class {class_name}")
    # Transformers refuses other shapes without saying where.
    own = {"ignore_mismatched_sizes": True} if library == "transformers" else {}
    try:
        model, report = kind.from_pretrained(
            str(directory),
            dtype=dtype,
            variant=found.weights[name].variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **own,
        )
    except Exception as error:
        raise _cannot_load(directory, error) from error
    for tensor, stored, expected in report["mismatched_keys"]:
        raise PlacementError(
            f"{directory}: {tensor} is {tuple(stored)} in the weights, but {tuple(expected)} "
            "by config.json"
        )
    # Both libraries fill them with random ones and only warn.
    if report["missing_keys"]:
        raise PlacementError(f"{directory}: weights are missing: {_some(report['missing_keys'])}")
    return model, sorted(report["unexpected_keys"])


def _taken(kind: Any, found: Checkpoint) -> set[str]:
    """What the pipeline class takes; what it cannot do without is there."""
    parameters = inspect.signature(kind).parameters
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and name not in kind._optional_components
        if needed and name not in found.classes:
            raise PlacementError(
                f"{found.directory / INDEX}: no {name}, which {found.pipeline_class} needs"
            )
    return set(parameters)


def _some(tensors: Iterable[str]) -> str:
    names = sorted(tensors)
    return f"{len(names)} tensors, e.g. {names[0]}"


# Whatever a library raises here is about the checkpoint: there is nothing else yet.
def _cannot_load(directory: Any, error: Exception) -> PlacementError:
    said = one_line(error).partition(" If you want to instead")[0]
    return PlacementError(f"{directory}: cannot be loaded: {type(error).__name__}: {said}")
