"""Finds the facts of a model by directory, by announced configs or by published name."""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.families import FAMILIES
from planner.models.reading import Configs

CONFIG_PATHS = (
    "model_index.json",
    "transformer/config.json",
    "transformer_2/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "guider/guider_config.json",
    "tokenizer_2/tokenizer_config.json",
)
MAX_CONFIG_BYTES = 1 << 20


class UnknownModelError(ValueError):
    """No facts are known for a model; the message says which are."""


def from_configs(configs: Configs, *, name: str) -> ModelFacts:
    """Facts from the configs of a checkpoint.

    Raises:
        UnknownModelError: the configs are incomplete or of a family that is not supported.
    """
    pipeline_class = configs.get("model_index.json", {}).get("_class_name")
    family = FAMILIES.get(pipeline_class) if isinstance(pipeline_class, str) else None
    if family is None:
        raise UnknownModelError(
            f"{name}: pipeline class {pipeline_class!r} is not supported; "
            f"supported: {', '.join(sorted(FAMILIES))}"
        )
    try:
        return family(configs)
    except KeyError as missing:
        raise UnknownModelError(f"{name}: {missing.args[0]} is missing") from None
    except ValueError as wrong:
        raise UnknownModelError(f"{name}: its configs hold an unusable value: {wrong}") from None


def from_directory(directory: Path) -> ModelFacts:
    """Facts from a diffusers checkpoint directory.

    Raises:
        UnknownModelError: no checkpoint is there, or one that is not supported.
    """
    if not (directory / "model_index.json").is_file():
        raise UnknownModelError(f"{directory}: no model_index.json, so no diffusers checkpoint")
    configs = {
        path: _read(directory / path) for path in CONFIG_PATHS if (directory / path).is_file()
    }
    return from_configs(configs, name=str(directory))


def from_name(name: str) -> ModelFacts:
    """Facts of a published checkpoint.

    Raises:
        UnknownModelError: the name is not in the table.
    """
    if name in NAMED:
        return _published(name)
    close = difflib.get_close_matches(name, NAMED, n=1)
    known = f"did you mean {close[0]}? known" if close else "known"
    raise UnknownModelError(
        f"{name}: neither a checkpoint directory nor a known model; {known}: "
        f"{', '.join(sorted(NAMED))}"
    )


@cache
def _published(name: str) -> ModelFacts:
    return from_configs(NAMED[name], name=name)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise UnknownModelError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        config = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UnknownModelError):
            raise
        raise UnknownModelError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise UnknownModelError(f"{path}: holds no JSON object")
    return config
