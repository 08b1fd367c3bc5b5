"""A diffusers checkpoint directory, looked over before anything is loaded from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.checkpoints.component import has_weights, inspect_component
from executor.checkpoints.files import read_json, read_text
from executor.checkpoints.weights import Weights, sample_weights, variants_of
from executor.errors import PlacementError

INDEX = "model_index.json"
# What the planner reads model facts from.
ANNOUNCED = (
    INDEX,
    "transformer/config.json",
    "transformer_2/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "guider/guider_config.json",
    "tokenizer_2/tokenizer_config.json",
)
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint; every file that loading it needs is there and readable.

    ``classes`` holds library and class of every component, ``configs`` the text of the configs by
    path, ``weights`` the files by component. ``adapter`` is the digest of what is fused into them.
    """

    directory: Path
    pipeline_class: str
    classes: dict[str, tuple[str, str]]
    configs: dict[str, str]
    weights: dict[str, Weights]
    adapter: str = ""

    def config(self, path: str) -> dict[str, Any]:
        """The parsed config at a path below the checkpoint, empty where there is none."""
        parsed = json.loads(self.configs.get(path, "{}"))
        return parsed if isinstance(parsed, dict) else {}

    @property
    def digest(self) -> str:
        """Equal for two copies of a checkpoint; reads some of every file of weights."""
        found = hashlib.sha256(self.adapter.encode())
        for path, text in sorted(self.configs.items()):
            found.update(f"{path}\0{text}\0".encode())
        for name, weights in sorted(self.weights.items()):
            for sample in sample_weights(weights):
                found.update(f"{name}\0{len(sample)}\0".encode() + sample)
        return found.hexdigest()


def inspect(directory: Path, variant: str | None = None) -> Checkpoint:
    """Reads the configs and the headers of the weights, those of a variant where there are such.

    Raises:
        PlacementError: a file is missing or cannot be read; the message names it.
    """
    if not directory.is_dir():
        raise PlacementError(f"{directory}: no such directory")
    index = read_json(directory / INDEX)
    pipeline_class = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(pipeline_class, str):
        raise PlacementError(
            f"{directory / INDEX}: _class_name {pipeline_class!r} is no pipeline of diffusers; "
            "code that comes with a checkpoint is never run"
        )
    classes = _classes(directory, index)
    if variant is not None:
        _require_variant(directory, classes, variant)
    weights = {}
    for name, (library, class_name) in classes.items():
        found = inspect_component(directory / name, library, class_name, variant)
        if found is not None:
            weights[name] = found
    configs = {
        path: read_text(directory / path) for path in ANNOUNCED if (directory / path).is_file()
    }
    return Checkpoint(directory, pipeline_class, classes, configs, weights)


def _classes(directory: Path, index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    classes = {}
    for name, source in index.items():
        if name.startswith("_") or not _is_component(source):
            continue
        if not name.isidentifier():
            raise PlacementError(f"{directory / INDEX}: {name!r} is no name of a component")
        library, class_name = source
        if library not in LIBRARIES:
            raise PlacementError(
                f"{directory / INDEX}: component {name} ({library}.{class_name}) is not of "
                f"{' or '.join(LIBRARIES)}; code that comes with a checkpoint is never run"
            )
        classes[name] = (str(library), str(class_name))
    return classes


def _is_component(source: Any) -> bool:
    """Whether an entry of the index is [library, class]; absent components are [null, null]."""
    return isinstance(source, list) and len(source) == 2 and source != [None, None]


def _require_variant(directory: Path, classes: dict[str, tuple[str, str]], variant: str) -> None:
    there: set[str] = set()
    for name, (library, class_name) in classes.items():
        if has_weights(class_name) and (directory / name).is_dir():
            there |= variants_of(directory / name, library)
    older = sorted(directory.glob(f"*/*.safetensors.{variant}.index.json"))
    if older:
        raise PlacementError(
            f"--variant {variant}: {older[0]} is named as older versions of diffusers did; save "
            f"it anew, with an index *.safetensors.index.{variant}.json"
        )
    if variant not in there:
        raise PlacementError(
            f"--variant {variant}: {directory} has no such weights, "
            f"only {' and '.join(('the plain ones', *sorted(there)))}"
        )
