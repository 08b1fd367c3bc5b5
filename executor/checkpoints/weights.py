"""The safetensors files that hold the weights of one component."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from executor.checkpoints.files import read_json, refuse_pointer
from executor.errors import PlacementError

# How each library names the weights of a model, and whether an index of shards counts before a
# single file where both are there.
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
INDEX_FIRST = {"diffusers": True, "transformers": False}
SUFFIX = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
VARIANT = r"[A-Za-z0-9_-]+"
# Of a safetensors file: the length of its header, and what is looked at of its data.
HEADER_SIZE_BYTES = 8
SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that the loader will read, and the variant that it is to ask for them."""

    files: tuple[Path, ...]
    variant: str | None = None


def find_weights(directory: Path, library: str, variant: str | None) -> Weights:
    """Those of the variant, or the plain ones where a component has none of it.

    Every file is whole: its header can be read, its data is as long as the header says, and it
    has the tensors that an index looks for in it.

    Raises:
        PlacementError: a file is missing or cannot be read; the message names it.
    """
    if variant is not None and variant in variants_of(directory, library):
        return Weights(_files(directory, library, variant), variant)
    return Weights(_files(directory, library, None))


def variants_of(directory: Path, library: str) -> set[str]:
    """E.g. {"fp16"} where there are weights of half the precision beside the plain ones."""
    return variants_among((file.name for file in directory.iterdir()), STEMS[library])


def variants_among(names: Iterable[str], *stems: str) -> set[str]:
    """Those of weights that begin with one of the stems."""
    stem = "|".join(stems)
    name = re.compile(
        rf"(?:{stem})\.(?:({VARIANT}?)(?:-\d{{5}}-of-\d{{5}})?\.safetensors"
        rf"|safetensors\.index\.({VARIANT})\.json)"
    )
    found = map(name.fullmatch, names)
    return {match[1] or match[2] for match in found if match}


def sample_weights(weights: Weights) -> Iterator[bytes]:
    """Of each file its name, its header and both ends of its data.

    Files of one architecture have equal headers whatever their weights.
    """
    for file in weights.files:
        with file.open("rb") as stored:
            header = stored.read(HEADER_SIZE_BYTES)
            header += stored.read(int.from_bytes(header, "little") + SAMPLE_BYTES)
            stored.seek(max(0, file.stat().st_size - SAMPLE_BYTES))
            yield file.name.encode() + header + stored.read()


def tensor_names(path: Path) -> set[str]:
    """Raises PlacementError where there is no such file, or no whole one."""
    if not path.is_file():
        raise PlacementError(f"{path}: no such file")
    refuse_pointer(path)
    try:
        # It compares the length of the data with the header too.
        with safe_open(path, framework="pt") as weights:
            return set(weights.keys())
    except (SafetensorError, OSError) as error:
        raise PlacementError(f"{path}: no readable safetensors file: {error}") from None


def _files(directory: Path, library: str, variant: str | None) -> tuple[Path, ...]:
    stem, mark = STEMS[library], f".{variant}" if variant else ""
    single = directory / f"{stem}{mark}.safetensors"
    index = directory / f"{stem}.safetensors.index{mark}.json"
    for path in (index, single) if INDEX_FIRST[library] else (single, index):
        if path.is_file():
            return _shards(index) if path == index else _whole(single)
    raise PlacementError(f"{directory}: no {single.name}{_instead(directory, library)}")


def _whole(single: Path) -> tuple[Path, ...]:
    tensor_names(single)
    return (single,)


def _shards(path: Path) -> tuple[Path, ...]:
    index = read_json(path)
    tensors = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(tensors, dict) or not tensors or "metadata" not in index:
        raise PlacementError(f"{path}: no weight_map and metadata, which an index of shards has")
    shards: dict[str, set[str]] = {}
    for tensor, name in tensors.items():
        _require_beside(path, name)
        shards.setdefault(name, set()).add(tensor)
    for name, expected in sorted(shards.items()):
        missing = sorted(expected - tensor_names(path.parent / name))
        if missing:
            raise PlacementError(
                f"{path.parent / name}: {len(missing)} tensors are missing that {path.name} "
                f"expects, e.g. {missing[0]}"
            )
    return tuple(path.parent / name for name in sorted(shards))


def _require_beside(index: Path, name: Any) -> None:
    plain = isinstance(name, str) and name == Path(name).name and name.endswith(SUFFIX)
    if not plain:
        raise PlacementError(f"{index}: {name!r} is no name of a file *{SUFFIX} beside it")


def _instead(directory: Path, library: str) -> str:
    """What is there where weights should be."""
    variants = sorted(variants_of(directory, library))
    if variants:
        return f", but the variant {', '.join(variants)}: choose it by --variant"
    pickles = sorted(file.name for file in directory.iterdir() if file.suffix in PICKLES)
    if pickles:
        return f"; only safetensors are read, not {pickles[0]}"
    return f" and no {STEMS[library]}.safetensors.index.json"
