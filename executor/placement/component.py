"""The files that one component of a checkpoint consists of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from executor.placement.errors import PlacementError

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
# Of a safetensors file: the length of its header, and what is looked at of its data.
HEADER_SIZE_BYTES = 8
SAMPLE_BYTES = 1 << 16
PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
# By the end of a component's class name: of each group of files, one must be there. The first
# ending that fits counts.
REQUIRED = {
    "Scheduler": (("scheduler_config.json",),),
    "Guidance": (("guider_config.json",),),
    # Its vocabulary is the bytes.
    "ByT5Tokenizer": (("tokenizer_config.json",),),
    "Tokenizer": (("tokenizer_config.json",), VOCABULARIES),
    "TokenizerFast": (("tokenizer_config.json",), VOCABULARIES),
    "Processor": (PREPROCESSORS,),
    "ProcessorPil": (PREPROCESSORS,),
    "FeatureExtractor": (("preprocessor_config.json",),),
}


def inspect_component(directory: Path, class_name: str) -> frozenset[str]:
    """The names of the weights of a component, none for a scheduler, tokenizer or processor.

    Raises:
        PlacementError: a file is missing or cannot be read; the message names it.
    """
    if not directory.is_dir():
        raise PlacementError(f"{directory}: no such directory, but model_index.json lists it")
    for file in sorted(directory.glob("*.json")):
        read_json(file)
    for ending, groups in REQUIRED.items():
        if class_name.endswith(ending):
            for names in groups:
                _require_one(directory, names)
            return frozenset()
    _require_one(directory, ("config.json",))
    return frozenset[str]().union(*(_tensor_names(file) for file in _weight_files(directory)))


def sample_weights(directory: Path) -> Iterator[bytes]:
    """Of each file of weights its name, its header and both ends of its data.

    Files of one architecture have equal headers whatever their weights.
    """
    for file in _weight_files(directory):
        with file.open("rb") as weights:
            header = weights.read(HEADER_SIZE_BYTES)
            header += weights.read(int.from_bytes(header, "little") + SAMPLE_BYTES)
            weights.seek(max(0, file.stat().st_size - SAMPLE_BYTES))
            yield file.name.encode() + header + weights.read()


def read_json(path: Path) -> Any:
    """Raises PlacementError where there is no such file or no JSON in it."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise PlacementError(f"{path}: no valid JSON: {error}") from None


def read_text(path: Path) -> str:
    """Raises PlacementError where there is no such file or no text in it."""
    if not path.is_file():
        raise PlacementError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlacementError(f"{path}: cannot be read: {error}") from None


def _require_one(directory: Path, names: tuple[str, ...]) -> None:
    if not any((directory / name).is_file() for name in names):
        raise PlacementError(f"{directory}: no {' or '.join(names)}")


def has_weights(class_name: str) -> bool:
    return not any(class_name.endswith(ending) for ending in REQUIRED)


def _weight_files(directory: Path) -> list[Path]:
    for name in WEIGHTS:
        if (directory / name).is_file():
            return [directory / name]
        shards = directory / f"{name}.index.json"
        if shards.is_file():
            index = read_json(shards)
            files = index.get("weight_map") if isinstance(index, dict) else None
            if not isinstance(files, dict) or not files:
                raise PlacementError(f"{shards}: no weight_map")
            return [directory / file for file in sorted({str(file) for file in files.values()})]
    raise PlacementError(f"{directory}: no weights; expected {' or '.join(WEIGHTS)}")


def _tensor_names(path: Path) -> set[str]:
    if not path.is_file():
        raise PlacementError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as weights:
            return set(weights.keys())
    except (SafetensorError, OSError) as error:
        raise PlacementError(f"{path}: no readable safetensors file: {error}") from None
