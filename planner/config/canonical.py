"""Values in their canonical spelling, with a hint where the text has another."""

from __future__ import annotations

from typing import Any

from planner.config.acceleration import AccelerationConfig
from planner.config.attention import ALIASES as ATTENTION_ALIASES
from planner.config.document import Path
from planner.config.spellings import QUANT_TYPES
from planner.diagnostics import Severity

# Values that mean the same in any case of letters.
ANY_CASE = {
    "parallelism_config": ("backend", "ulysses_size", "ring_size", "tp_size"),
}


def canonical_value(config: AccelerationConfig, name: str, key: str, value: Any) -> Any:
    path = (name, key)
    if path == ("quantize_config", "precision_plan") and isinstance(value, dict):
        return {part: _quant_type(config, (*path, part), kind) for part, kind in value.items()}
    if path == ("quantize_config", "components_to_quantize") and isinstance(value, dict):
        return {part: _component(config, (*path, part), inner) for part, inner in value.items()}
    if path == ("quantize_config", "quant_type"):
        return _quant_type(config, path, value)
    if path == ("parallelism_config", "attention_backend"):
        return attention_backend(config, path, value)
    if isinstance(value, str) and key in ANY_CASE.get(name, ()):
        return value.lower()
    return value


def attention_backend(config: AccelerationConfig, path: Path, value: Any) -> Any:
    """A backend by the name that executors know it by."""
    if not isinstance(value, str) or value not in ATTENTION_ALIASES:
        return value
    meant = ATTENTION_ALIASES[value]
    config.report(
        Severity.HINT,
        "attention-backend-alias",
        path,
        f"{value} means {meant}",
        f"{path[-1]}: {meant}",
    )
    return meant


def _component(config: AccelerationConfig, path: Path, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    # null keeps what is for all components
    known = {key: inner for key, inner in value.items() if inner is not None}
    if "quant_type" in known:
        known["quant_type"] = _quant_type(config, (*path, "quant_type"), known["quant_type"])
    return known


def _quant_type(config: AccelerationConfig, path: Path, value: Any) -> Any:
    """A type in its canonical spelling."""
    if not isinstance(value, str):
        return value
    value = value.lower()
    if value not in QUANT_TYPES:
        return value
    config.report(
        Severity.HINT,
        "quant-type-alias",
        path,
        f"{value} means {QUANT_TYPES[value]}",
        f"{path[-1]}: {QUANT_TYPES[value]}",
    )
    return QUANT_TYPES[value]
