"""From a document to a typed config: sections, spellings, defaults, and what is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from planner.config.document import Document, DocumentError, Path, parse
from planner.config.schema import CacheConfig, ParallelismConfig, QuantizeConfig, Section
from planner.diagnostics import Diagnostic, Severity

SECTIONS: Mapping[str, type[Section]] = {
    "cache_config": CacheConfig,
    "parallelism_config": ParallelismConfig,
    "quantize_config": QuantizeConfig,
}
TOP_LEVEL = (*SECTIONS, "attention_backend")

# Other spellings that users have in their files, by section.
_SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "cache_config": {"enable_sperate_cfg": "enable_separate_cfg"},
    "parallelism_config": {"ulysses": "ulysses_size", "ring": "ring_size", "tp": "tp_size"},
    "quantize_config": {},
}
_QUANT_TYPES = {
    "float8": "float8_per_row",
    "float8_blockwise": "float8_per_block",
    "int8": "int8_per_row",
}
# Keys of the peer that are left out on purpose.
_UNSUPPORTED: Mapping[str, Mapping[str, str]] = {
    "cache_config": dict.fromkeys(
        (
            "enable_dynamic_prune_threshold",
            "max_dynamic_prune_threshold",
            "dynamic_prune_threshold_relax_ratio",
            "non_prune_block_ids",
            "force_reduce_calibrator_vram",
        ),
        "belongs to DBPrune, which ditplan does not support",
    ),
    "parallelism_config": dict.fromkeys(
        ("cp_plan", "extra_parallel_kwargs", "parallel_kwargs", "use_ray"),
        "is not supported by ditplan",
    ),
    "quantize_config": dict.fromkeys(
        (
            "backend",
            "components_to_quantize",
            "precision_plan",
            "regional_quantize",
            "repeated_blocks",
            "filter_fn",
            "per_tensor_fallback",
            "calibrate_fn",
            "serialize_to",
            "svdq_kwargs",
        ),
        "is not supported by ditplan yet",
    ),
}


@dataclass(slots=True)
class AccelerationConfig:
    """A config as it was written, typed. A section that is absent is None.

    ``diagnostics`` collects what was found while loading; ``given`` holds the paths that the text
    sets, so that a default can be told from a choice.
    """

    document: Document
    cache: CacheConfig | None = None
    parallelism: ParallelismConfig | None = None
    quantize: QuantizeConfig | None = None
    attention_backend: str = ""
    flat: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def report(
        self,
        severity: Severity,
        code: str,
        path: Path,
        message: str,
        hint: str = "",
        *,
        at_key: bool = False,
    ) -> None:
        """Adds a finding about the value (or key) at ``path``, with its place in the text."""
        text_path = path[1:] if self.flat and path[:1] == ("cache_config",) else path
        while text_path and text_path not in self.document.places:
            text_path = text_path[:-1]
        # What the text does not hold (a field of the request) has no place in it.
        place = self.document.places.get(text_path) if text_path or not path else None
        line, column = (place.key if at_key else place.value) if place else (0, 0)
        self.diagnostics.append(
            Diagnostic(severity, code, dotted(path), message, hint, line, column)
        )


def dotted(path: Path) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def load(text: str | bytes) -> AccelerationConfig:
    """Never raises on bad text: every fault is a diagnostic of the result."""
    try:
        document = parse(text)
    except DocumentError as error:
        return AccelerationConfig(Document(None), diagnostics=[error.diagnostic])
    config = AccelerationConfig(document)
    root = document.value
    if root is None:
        return config
    if not isinstance(root, dict):
        config.report(
            Severity.ERROR,
            "invalid-type",
            (),
            f"the config is {_kind(root)}, not a mapping with sections",
            f"sections: {', '.join(TOP_LEVEL)}",
        )
        return config
    if any(key in TOP_LEVEL for key in root):
        _load_sections(config, root)
    elif not root or _looks_flat(root):
        # The legacy form: the whole file is a cache_config.
        config.flat = True
        _load_section(config, "cache_config", root)
    else:
        _report_unknown(config, root, (), TOP_LEVEL)
    return config


def _looks_flat(root: dict[str, Any]) -> bool:
    known = [*CacheConfig.model_fields, *_SPELLINGS["cache_config"], *_UNSUPPORTED["cache_config"]]
    return any(difflib.get_close_matches(key, known, n=1, cutoff=0.8) for key in root) and not any(
        difflib.get_close_matches(key, TOP_LEVEL, n=1, cutoff=0.8) for key in root
    )


def _load_sections(config: AccelerationConfig, root: dict[str, Any]) -> None:
    unknown = {key: value for key, value in root.items() if key not in TOP_LEVEL}
    _report_unknown(config, unknown, (), TOP_LEVEL)
    for name in SECTIONS:
        if name in root:
            _load_section(config, name, root[name])
    backend = root.get("attention_backend")
    if backend is not None:
        if isinstance(backend, str):
            config.attention_backend = backend
        else:
            config.report(
                Severity.ERROR,
                "invalid-value",
                ("attention_backend",),
                f"{_shown(backend)} is not allowed; allowed: a text",
            )


def _load_section(config: AccelerationConfig, name: str, raw: Any) -> None:
    if not isinstance(raw, dict):
        config.report(
            Severity.ERROR,
            "invalid-type",
            (name,),
            f"{name} is {_kind(raw)}, not a mapping",
            f"remove {name}, or write its keys below it",
        )
        return
    schema = SECTIONS[name]
    values = {}
    for key, value in _canonical(config, name, raw).items():
        if key in _UNSUPPORTED[name]:
            config.report(
                Severity.ERROR,
                "unsupported-key",
                (name, key),
                f"{key} {_UNSUPPORTED[name][key]}",
                at_key=True,
            )
        elif key not in schema.model_fields:
            _report_unknown(config, {key: value}, (name,), tuple(schema.model_fields))
        elif value is not None:  # null keeps the default
            values[key] = value
    try:
        section = schema.model_validate(values)
    except ValidationError as error:
        _report_invalid(config, name, schema, values, error)
        return
    match section:
        case CacheConfig():
            config.cache = section
        case ParallelismConfig():
            config.parallelism = section
        case QuantizeConfig():
            config.quantize = section


def _canonical(config: AccelerationConfig, name: str, raw: dict[str, Any]) -> dict[str, Any]:
    """The section with other spellings of keys and values replaced by the ones of the schema."""
    values: dict[str, Any] = {}
    for key, value in raw.items():
        canonical = _SPELLINGS[name].get(key, key)
        if canonical != key:
            if canonical in raw:
                config.report(
                    Severity.ERROR,
                    "duplicate-key",
                    (name, key),
                    f"{key} is another spelling of {canonical}, which is given too",
                    f"remove {key}",
                    at_key=True,
                )
                continue
            _move_places(config.document, (name, key), (name, canonical), flat=config.flat)
            if name == "cache_config":
                config.report(
                    Severity.WARNING,
                    "misspelt-key",
                    (name, canonical),
                    f"{key} is read as {canonical}; Cache-DiT ignores it",
                    f"{canonical}: {_yaml(value)}",
                    at_key=True,
                )
        values[canonical] = value
    if name == "parallelism_config":
        for key in ("ulysses_size", "ring_size", "tp_size"):
            if isinstance(values.get(key), str) and values[key].lower() == "auto":
                values[key] = "auto"
    if name == "quantize_config" and isinstance(values.get("quant_type"), str):
        values["quant_type"] = _quant_type(config, values["quant_type"].lower())
    return values


def _quant_type(config: AccelerationConfig, quant_type: str) -> str:
    canonical = _QUANT_TYPES.get(quant_type, quant_type)
    if canonical != quant_type:
        config.report(
            Severity.HINT,
            "quant-type-alias",
            ("quantize_config", "quant_type"),
            f"{quant_type} means {canonical}",
            f"quant_type: {canonical}",
        )
    return canonical


def _move_places(document: Document, old: Path, new: Path, *, flat: bool) -> None:
    if flat:
        old, new = old[1:], new[1:]
    if old in document.places:
        document.places[new] = document.places[old]


def _report_unknown(
    config: AccelerationConfig, unknown: Mapping[str, Any], parent: Path, known: tuple[str, ...]
) -> None:
    for key in unknown:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        config.report(
            Severity.ERROR,
            "unknown-key",
            (*parent, key),
            f"unknown key {_shown(key)}",
            f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}",
            at_key=True,
        )


def _report_invalid(
    config: AccelerationConfig,
    name: str,
    schema: type[Section],
    values: dict[str, Any],
    error: ValidationError,
) -> None:
    """One diagnostic a key, whatever the number of union members that did not match."""
    for key in dict.fromkeys(str(fault["loc"][0]) for fault in error.errors()):
        value = values[key]
        if key == "cache_type":
            config.report(
                Severity.ERROR,
                "unsupported-value",
                (name, key),
                f"{_shown(value)} is not supported by ditplan; allowed: DBCache",
                "DBPrune has no replacement here; remove cache_type to use DBCache",
            )
            continue
        if key == "quant_type" and isinstance(value, str) and value.startswith("svdq"):
            config.report(
                Severity.ERROR,
                "unsupported-value",
                (name, key),
                f"{_shown(value)}: SVDQuant is not supported by ditplan",
            )
            continue
        allowed = _allowed(schema.model_fields[key])
        config.report(
            Severity.ERROR,
            "invalid-value",
            _deepest(config, name, key, value, error),
            f"{_shown(value)} is not allowed for {key}; allowed: {allowed}",
            _value_hint(value, schema.model_fields[key]),
        )


def _deepest(
    config: AccelerationConfig, name: str, key: str, value: Any, error: ValidationError
) -> Path:
    """The path of the wrong item of a list, else of the key."""
    if isinstance(value, list):
        items = [
            part
            for fault in error.errors()
            if fault["loc"][0] == key
            for part in fault["loc"][1:]
            if isinstance(part, int)
        ]
        if items:
            return (name, key, min(items))
    return (name, key)


def _value_hint(value: Any, info: FieldInfo) -> str:
    if isinstance(value, str):
        for number in (int, float):
            try:
                return f"write the number without quotes and with a dot: {number(value)!r}"
            except ValueError:
                continue
        choices = [c for c in _literals(info.annotation) if isinstance(c, str)]
        close = difflib.get_close_matches(value.lower(), choices, n=1)
        if close:
            return f"did you mean {close[0]}?"
    return ""


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _literals(part)]


def _allowed(info: FieldInfo) -> str:
    """What a key takes, in words."""
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    return _describe(info.annotation, info.metadata)


def _describe(annotation: Any, metadata: list[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *rest = get_args(annotation)
        constraints = [m for part in rest for m in (getattr(part, "metadata", None) or [part])]
        return _describe(inner, constraints)
    if origin is Literal:
        return " or ".join(str(choice) for choice in get_args(annotation))
    if origin is list:
        return f"a list of: {_describe(get_args(annotation)[0], [])}"
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return " or ".join(
            _describe(part, metadata) for part in get_args(annotation) if part is not type(None)
        )
    word = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(
        annotation, "a mapping" if _is_model(annotation) else "a value"
    )
    bounds = [
        f"{sign} {bound}"
        for attribute, sign in (("ge", ">="), ("le", "<="))
        for m in metadata
        if (bound := getattr(m, attribute, None)) is not None and abs(bound) < 2**31 - 1
    ]
    return " ".join([word, " and ".join(bounds)]).strip()


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "empty"}.get(
        type(value), f"the value {_shown(value)}"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else _shown(value)
