"""A diffusers checkpoint directory, looked over before anything is loaded from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from executor.placement.errors import PlacementError

MAX_CONFIG_BYTES = 1 << 20
INDEX = "model_index.json"
# The config of a component without weights: scheduler, tokenizer or image processor.
WEIGHTLESS = (
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
# What the planner reads model facts from.
ANNOUNCED = (
    INDEX,
    "transformer/config.json",
    "transformer_2/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
)
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint; every file that loading it needs is there and readable.

    ``tensors`` holds the names of the weights of each component that has any.
    """

    directory: Path
    pipeline_class: str
    configs: dict[str, str]
    tensors: dict[str, frozenset[str]]

    def config(self, path: str) -> dict[str, Any]:
        """The parsed config at a path below the checkpoint, empty where there is none."""
        parsed = json.loads(self.configs.get(path, "{}"))
        return parsed if isinstance(parsed, dict) else {}


def inspect(directory: Path) -> Checkpoint:
    """Reads the configs and the headers of the weights.

    Raises:
        PlacementError: a file is missing or cannot be read; the message names it.
    """
    if not directory.is_dir():
        raise PlacementError(f"{directory}: no such directory")
    index = _parse(directory / INDEX)
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str):
        raise PlacementError(
            f"{directory / INDEX}: _class_name {pipeline_class!r} is no pipeline of diffusers; "
            "code that comes with a checkpoint is never run"
        )
    tensors = {}
    for name, source in index.items():
        if name.startswith("_") or not _is_component(source):
            continue
        library, class_name = source
        if library not in LIBRARIES:
            raise PlacementError(
                f"{directory / INDEX}: component {name} ({library}.{class_name}) is not of "
                f"{' or '.join(LIBRARIES)}; code that comes with a checkpoint is never run"
            )
        weights = _weight_files(directory / name)
        if weights:
            tensors[name] = frozenset[str]().union(*(_tensor_names(file) for file in weights))
    configs = {path: _read(directory / path) for path in ANNOUNCED if (directory / path).is_file()}
    return Checkpoint(directory, pipeline_class, configs, tensors)


def _is_component(source: Any) -> bool:
    """Whether an entry of the index is [library, class]; absent components are [null, null]."""
    return isinstance(source, list) and len(source) == 2 and source != [None, None]


def _weight_files(component: Path) -> list[Path]:
    """The safetensors files of a component, none for one without weights."""
    if not component.is_dir():
        raise PlacementError(f"{component}: no such directory, but {INDEX} lists it")
    if any((component / name).is_file() for name in WEIGHTLESS):
        return []
    _parse(component / "config.json")
    for name in WEIGHTS:
        if (component / name).is_file():
            return [component / name]
        shards = component / f"{name}.index.json"
        if shards.is_file():
            files = _parse(shards).get("weight_map")
            if not isinstance(files, dict) or not files:
                raise PlacementError(f"{shards}: no weight_map")
            return [component / str(file) for file in sorted(set(files.values()))]
    raise PlacementError(f"{component}: no weights; expected {' or '.join(WEIGHTS)}")


def _tensor_names(path: Path) -> set[str]:
    if not path.is_file():
        raise PlacementError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as weights:
            return set(weights.keys())
    except (SafetensorError, OSError) as error:
        raise PlacementError(f"{path}: no readable safetensors file: {error}") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(_read(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise PlacementError(f"{path}: no valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise PlacementError(f"{path}: a JSON object is expected")
    return parsed


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES and not path.name.endswith(".index.json"):
            raise PlacementError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PlacementError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlacementError(f"{path}: cannot be read: {error}") from None
