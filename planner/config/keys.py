"""Which keys a config has, and what is said of others."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from planner.config.acceleration import AccelerationConfig
from planner.config.document import Path
from planner.config.schema import CacheConfig, ParallelismConfig, QuantizeConfig, Section
from planner.config.spellings import UNSUPPORTED, canonical_key
from planner.config.wording import closest, shown
from planner.diagnostics import Severity

SECTIONS: Mapping[str, type[Section]] = {
    "cache_config": CacheConfig,
    "parallelism_config": ParallelismConfig,
    "quantize_config": QuantizeConfig,
}
TOP_LEVEL = (*SECTIONS, "attention_backend")

# A file of thousands of unknown keys is not a config with thousands of typing errors.
_MAX_UNKNOWN_KEYS = 20


def report_unknown(
    config: AccelerationConfig, parent: Path, unknown: list[str], known: tuple[str, ...]
) -> None:
    """Reports keys of the mapping at ``parent`` that are none of the known ones."""
    for key in first_few(unknown):
        close, section = closest(key, known), _section_of(key)
        if section is not None and parent != (section,):
            hint = f"{key} belongs below {section}"
        else:
            hint = f"did you mean {close}?" if close else f"known keys: {', '.join(known)}"
        config.report(
            Severity.ERROR,
            "unknown-key",
            (*parent, key),
            f"unknown key {shown(key)}",
            hint,
            at_key=True,
        )
    if len(unknown) > _MAX_UNKNOWN_KEYS:
        config.report(
            Severity.ERROR,
            "unknown-key",
            (*parent, unknown[_MAX_UNKNOWN_KEYS]),
            f"{len(unknown) - _MAX_UNKNOWN_KEYS} more unknown keys",
            at_key=True,
        )


def first_few(keys: Iterable[str]) -> tuple[str, ...]:
    """As many keys as are worth a closer look."""
    return tuple(itertools.islice(keys, _MAX_UNKNOWN_KEYS))


def _section_of(key: str) -> str | None:
    """The section to which a key belongs, whatever stands around it."""
    for name, schema in SECTIONS.items():
        if canonical_key(name, key) in schema.model_fields or key in UNSUPPORTED[name]:
            return name
    return None
