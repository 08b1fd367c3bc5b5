"""One section of a config: from a plain mapping to typed values, or to what is wrong with it."""

from __future__ import annotations

from typing import Any

from planner.config.acceleration import AccelerationConfig
from planner.config.canonical import canonical_value
from planner.config.document import Path
from planner.config.keys import SECTIONS, report_unknown
from planner.config.schema import (
    CacheConfig,
    ParallelismConfig,
    QuantizeConfig,
    TargetCacheConfig,
)
from planner.config.spellings import LEGACY, MISSPELT, UNSUPPORTED, Unsupported, canonical_key
from planner.config.validation import validated
from planner.config.wording import as_yaml, kind_of
from planner.diagnostics import Severity


def load_section(config: AccelerationConfig, name: str, raw: Any) -> None:
    """Sets a section of the config; every fault of it is reported."""
    if not isinstance(raw, dict):
        config.report(
            Severity.ERROR,
            "invalid-type",
            (name,),
            f"{name} is {kind_of(raw)}, not a mapping",
            f"remove {name}, or write its keys below it",
        )
        return
    values = _known(config, name, raw)
    if name == "cache_config" and isinstance(values.get("secondary"), dict):
        inner, fields = values["secondary"], tuple(TargetCacheConfig.model_fields)
        path = (name, "secondary")
        report_unknown(config, path, [key for key in inner if key not in fields], fields)
        known = {key: value for key, value in inner.items() if key in fields}
        values["secondary"] = validated(config, path, TargetCacheConfig, known)
    match validated(config, (name,), SECTIONS[name], values):
        case CacheConfig() as section:
            config.cache = section
        case ParallelismConfig() as section:
            config.parallelism = section
        case QuantizeConfig() as section:
            config.quantize = section


def _known(config: AccelerationConfig, name: str, raw: dict[str, Any]) -> dict[str, Any]:
    """The keys of a section that its schema has, in their canonical spelling."""
    fields = SECTIONS[name].model_fields
    values: dict[str, Any] = {}
    unknown = []
    for key, value in raw.items():
        canonical = canonical_key(name, key)
        if key in UNSUPPORTED[name]:
            _check_unsupported(config, (name, key), UNSUPPORTED[name][key], value)
        elif key == "parallel_kwargs" and name == "parallelism_config":
            values |= _legacy_values(config, raw, value)
        elif canonical not in fields:
            unknown.append(key)
        elif canonical in values or (canonical != key and canonical in raw):
            config.report(
                Severity.ERROR,
                "duplicate-key",
                (name, key),
                f"{key} is another spelling of {canonical}, which is given too",
                f"remove {key}",
                at_key=True,
            )
        else:
            if canonical != key:
                _note_spelling(config, name, key, canonical, value)
            values[canonical] = canonical_value(config, name, canonical, value)
    report_unknown(config, (name,), unknown, tuple(fields))
    return values


def _check_unsupported(
    config: AccelerationConfig, path: Path, known: Unsupported, value: Any
) -> None:
    plain = value.lower() if isinstance(value, str) else value
    if plain is None or any(plain == each and type(plain) is type(each) for each in known.harmless):
        return
    hint = f"{path[-1]}: {as_yaml(known.harmless[0])}" if known.harmless else f"remove {path[-1]}"
    message = f"{path[-1]} {known.reason}"
    config.report(Severity.ERROR, "unsupported-key", path, message, hint, at_key=True)


def _legacy_values(config: AccelerationConfig, raw: dict[str, Any], legacy: Any) -> dict[str, Any]:
    """The keys of a section that stand below ``parallel_kwargs``, as they did once."""
    name = "parallelism_config"
    path, fields = (name, "parallel_kwargs"), SECTIONS[name].model_fields
    given = {canonical_key(name, key) for key in raw}
    if legacy is None:
        return {}
    if not isinstance(legacy, dict):
        message = f"parallel_kwargs is {kind_of(legacy)}, not a mapping"
        config.report(Severity.ERROR, "invalid-type", path, message, "remove parallel_kwargs")
        return {}
    values, unknown = {}, []
    for key, value in legacy.items():
        canonical = LEGACY.get(key) or canonical_key(name, key)
        if canonical not in fields:
            unknown.append(key)
        elif canonical in given or canonical in values:
            config.report(
                Severity.ERROR,
                "duplicate-key",
                (*path, key),
                f"{key} is another spelling of {canonical}, which is given too",
                f"remove {key}",
                at_key=True,
            )
        else:
            places = config.document.places
            places[name, canonical] = places[*path, key]
            values[canonical] = canonical_value(config, name, canonical, value)
            config.report(
                Severity.HINT,
                "legacy-key",
                (name, canonical),
                f"parallel_kwargs.{key} is the old place of parallelism_config.{canonical}",
                f"{canonical}: {as_yaml(value)}",
                at_key=True,
            )
    report_unknown(config, path, unknown, (*fields, *LEGACY))
    return values


def _note_spelling(
    config: AccelerationConfig, name: str, key: str, canonical: str, value: Any
) -> None:
    """Lets findings about the canonical key point at the key that the text has."""
    places = config.document.places
    written, meant = config.text_path((name, key)), config.text_path((name, canonical))
    places[meant] = places[written]
    if key in MISSPELT.get(name, {}):
        config.report(
            Severity.WARNING,
            "misspelt-key",
            (name, canonical),
            f"{key} is read as {canonical}; Cache-DiT ignores it",
            f"{canonical}: {as_yaml(value)}",
            at_key=True,
        )
