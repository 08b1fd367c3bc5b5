"""One section of a config: from a plain mapping to typed values, or to what is wrong with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from planner.config.acceleration import AccelerationConfig, dotted
from planner.config.attention import ALIASES as ATTENTION_ALIASES
from planner.config.attention import UNSUPPORTED as UNSUPPORTED_ATTENTION
from planner.config.document import Path
from planner.config.schema import (
    CacheConfig,
    Component,
    ComponentQuantizeConfig,
    MaskBins,
    ParallelismConfig,
    QuantizeConfig,
    QuantType,
    Section,
    TargetCacheConfig,
)
from planner.config.spellings import (
    LEGACY,
    MISSPELT,
    QUANT_TYPES,
    UNSUPPORTED,
    Unsupported,
    canonical_key,
)
from planner.config.wording import allowed, as_yaml, closest, kind_of, remedy, shown
from planner.diagnostics import Severity

SECTIONS: Mapping[str, type[Section]] = {
    "cache_config": CacheConfig,
    "parallelism_config": ParallelismConfig,
    "quantize_config": QuantizeConfig,
}
TOP_LEVEL = (*SECTIONS, "attention_backend")

# A file of thousands of unknown keys is not a config with thousands of typing errors.
_MAX_UNKNOWN_KEYS = 20
# Values that mean the same in any case of letters.
ANY_CASE = {
    "parallelism_config": ("backend", "ulysses_size", "ring_size", "tp_size"),
}


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


def validated(
    config: AccelerationConfig, path: Path, schema: type[Section], raw: dict[str, Any]
) -> Section | None:
    """The typed form of known keys below ``path``, or None after every fault is reported."""
    # null keeps the default
    values = {key: value for key, value in raw.items() if value is not None}
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        for key, faults in itertools.groupby(error.errors(), lambda fault: str(fault["loc"][0])):
            _report_invalid(config, path, schema.model_fields[key], key, values[key], list(faults))
        return None


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
            values[canonical] = _canonical_value(config, name, canonical, value)
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
            values[canonical] = _canonical_value(config, name, canonical, value)
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


def _canonical_value(config: AccelerationConfig, name: str, key: str, value: Any) -> Any:
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


def _report_invalid(
    config: AccelerationConfig,
    parent: Path,
    info: FieldInfo,
    key: str,
    value: Any,
    faults: list[ErrorDetails],
) -> None:
    """One diagnostic a key, whatever the number of union members that did not match."""
    if key == "steps_computation_mask" and isinstance(value, dict):
        bins = tuple(MaskBins.model_fields)
        unknown = [inner for inner in value if inner not in bins]
        if unknown:
            report_unknown(config, (*parent, key), unknown, bins)
            return
    if key == "components_to_quantize" and isinstance(value, dict):
        before = len(config.diagnostics)
        _report_component_keys(config, (*parent, key), value)
        if len(config.diagnostics) > before:
            return
    code, message, hint = "invalid-value", "", ""
    path, wrong = _deepest(value, faults)
    if key == "cache_type":
        code = "unsupported-value"
        message = f"{shown(value)} is not supported by ditplan; allowed: DBCache"
        hint = "DBPrune has no replacement here; remove cache_type to use DBCache"
    elif isinstance(wrong, str) and key == "attention_backend" and wrong in UNSUPPORTED_ATTENTION:
        code, known = "unsupported-value", UNSUPPORTED_ATTENTION[wrong]
        message = f"{wrong} {known.reason}; allowed: {allowed(info, wrong)}"
        hint = f"{key}: {known.instead}"
    elif isinstance(wrong, str) and wrong.startswith("svdq"):
        code = "unsupported-value"
        message = f"{shown(wrong)}: SVDQuant is not supported by ditplan"
    else:
        where = dotted((key, *path))
        message = f"{shown(wrong)} is not allowed for {where}; allowed: {allowed(info, wrong)}"
        hint = _nested_remedy(key, path, wrong) or remedy(key, info, value)
    config.report(Severity.ERROR, code, (*parent, key, *path), message, hint)


def _nested_remedy(key: str, path: Path, wrong: Any) -> str:
    """A hint for a value of a key whose type is no scalar."""
    if not isinstance(wrong, str):
        return ""
    if key == "components_to_quantize" and wrong in get_args(Component) and not path:
        return f"{key}: [{wrong}]"
    if path[-1:] == ("quant_type",) or (key == "precision_plan" and path):
        close = closest(wrong, (*get_args(QuantType), *QUANT_TYPES))
        return f"did you mean {close}?" if close else ""
    return ""


def _report_component_keys(config: AccelerationConfig, path: Path, value: dict[str, Any]) -> None:
    components = get_args(Component)
    report_unknown(config, path, [name for name in value if name not in components], components)
    fields = tuple(ComponentQuantizeConfig.model_fields)
    for name, inner in value.items():
        if isinstance(inner, dict):
            unknown = [key for key in inner if key not in fields]
            report_unknown(config, (*path, name), unknown, fields)


def _deepest(value: Any, faults: list[ErrorDetails]) -> tuple[Path, Any]:
    """The innermost wrong item below a value: its path and itself."""
    found: tuple[Path, Any] = ((), value)
    for fault in faults:
        path: Path = ()
        inner = value
        # Locations name union members too, which are no part of the value.
        for part in fault["loc"][1:]:
            if isinstance(inner, dict):
                held = part in inner
            else:
                held = isinstance(inner, list) and isinstance(part, int) and part < len(inner)
            if held:
                path, inner = (*path, part), inner[part]
        if len(path) > len(found[0]):
            found = (path, inner)
    return found


def _section_of(key: str) -> str | None:
    """The section to which a key belongs, whatever stands around it."""
    for name, schema in SECTIONS.items():
        if canonical_key(name, key) in schema.model_fields or key in UNSUPPORTED[name]:
            return name
    return None


def first_few(keys: Iterable[str]) -> tuple[str, ...]:
    """As many keys as are worth a closer look."""
    return tuple(itertools.islice(keys, _MAX_UNKNOWN_KEYS))
