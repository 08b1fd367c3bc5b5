"""Reads values of a checkpoint's configs: of the right type and within reason, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Configs = Mapping[str, Mapping[str, Any]]
"""The JSON configs of a checkpoint by path, e.g. ``transformer/config.json``."""

MOST_BLOCKS = 4096
MOST_CHANNELS = 65536
MOST_LEVELS = 8


def count(
    config: Mapping[str, Any], key: str, default: int, *, least: int = 1, most: int = MOST_BLOCKS
) -> int:
    """A number of things.

    Raises:
        ValueError: the value is none that a checkpoint can have.
    """
    value = config.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} is {_shown(value)}, not a number from {least} to {most}")
    return value


def channels(config: Mapping[str, Any], key: str, default: int) -> int:
    """A width, likewise."""
    return count(config, key, default, most=MOST_CHANNELS)


def optional_channels(config: Mapping[str, Any], key: str) -> int | None:
    """A width, or None where the config has null or nothing."""
    return None if config.get(key) is None else channels(config, key, 1)


def ratio(config: Mapping[str, Any], key: str, default: float) -> float:
    """A factor above 0, at most 64."""
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value <= 64:
        raise ValueError(f"{key} is {_shown(value)}, not a number above 0")
    return float(value)


def flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    return config.get(key, default) is True


def levels(config: Mapping[str, Any], key: str, default: int) -> int:
    """How many entries a list has that has one for every level of a VAE."""
    return len(_entries(config, key)) if key in config else default


def halvings(config: Mapping[str, Any], key: str, default: int) -> int:
    """How many entries are true of a list that says for every level whether it halves."""
    return sum(each is True for each in _entries(config, key)) if key in config else default


def counts(config: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of as many numbers as the default has."""
    if key not in config:
        return default
    values = _entries(config, key)
    if len(values) != len(default):
        raise ValueError(f"{key} has {len(values)} entries, not {len(default)}")
    return tuple(count({key: value}, key, 1) for value in values)


def _entries(config: Mapping[str, Any], key: str) -> list[Any]:
    value = config[key]
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_LEVELS:
        raise ValueError(f"{key} is {_shown(value)}, not a list of 1 to {MOST_LEVELS} entries")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
