"""A diffusers checkpoint directory, looked over before anything is loaded from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.placement.component import (
    has_weights,
    inspect_component,
    read_json,
    read_text,
    sample_weights,
)
from executor.placement.errors import PlacementError

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

    ``classes`` holds the class of every component, ``configs`` the text of the configs by path,
    ``tensors`` the names of the weights by component.
    """

    directory: Path
    pipeline_class: str
    classes: dict[str, str]
    configs: dict[str, str]
    tensors: dict[str, frozenset[str]]

    def config(self, path: str) -> dict[str, Any]:
        """The parsed config at a path below the checkpoint, empty where there is none."""
        parsed = json.loads(self.configs.get(path, "{}"))
        return parsed if isinstance(parsed, dict) else {}

    @property
    def digest(self) -> str:
        """Equal for two copies of a checkpoint; reads some of every file of weights."""
        found = hashlib.sha256()
        for path, text in sorted(self.configs.items()):
            found.update(f"{path}\0{text}\0".encode())
        for name, class_name in sorted(self.classes.items()):
            if has_weights(class_name):
                for sample in sample_weights(self.directory / name):
                    found.update(f"{name}\0{len(sample)}\0".encode() + sample)
        return found.hexdigest()


def inspect(directory: Path) -> Checkpoint:
    """Reads the configs and the headers of the weights.

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
    classes, tensors = {}, {}
    for name, source in index.items():
        if name.startswith("_") or not _is_component(source):
            continue
        library, class_name = source
        if library not in LIBRARIES:
            raise PlacementError(
                f"{directory / INDEX}: component {name} ({library}.{class_name}) is not of "
                f"{' or '.join(LIBRARIES)}; code that comes with a checkpoint is never run"
            )
        classes[name] = str(class_name)
        tensors[name] = inspect_component(directory / name, classes[name])
    configs = {
        path: read_text(directory / path) for path in ANNOUNCED if (directory / path).is_file()
    }
    return Checkpoint(directory, pipeline_class, classes, configs, tensors)


def _is_component(source: Any) -> bool:
    """Whether an entry of the index is [library, class]; absent components are [null, null]."""
    return isinstance(source, list) and len(source) == 2 and source != [None, None]
