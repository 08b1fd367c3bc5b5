"""The JSON Schema of an acceleration config, for editors and for checks without ditplan."""

from __future__ import annotations

from typing import Any

from planner.config.attention import ALIASES
from planner.config.canonical import ANY_CASE
from planner.config.keys import SECTIONS
from planner.config.schema import TopLevel
from planner.config.spellings import LEGACY, MISSPELT, QUANT_TYPES, SYNONYMS, UNSUPPORTED


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. Every text that it accepts loads, except for what no schema can say."""
    definitions: dict[str, Any] = {}
    sections = {}
    for name, section in SECTIONS.items():
        schema = section.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        properties = schema["properties"]
        _accept_attention_aliases(properties)
        spellings = {**MISSPELT.get(name, {}), **SYNONYMS.get(name, {})}
        for spelling, key in spellings.items():
            properties[spelling] = {
                **properties[key],
                "deprecated": key not in SYNONYMS.get(name, {}).values(),
            }
        for key, unsupported in UNSUPPORTED[name].items():
            if unsupported.harmless:
                properties[key] = {
                    "description": f"Says what is done anyway; else it {unsupported.reason}.",
                    "enum": list(unsupported.harmless),
                    "deprecated": True,
                }
        if name == "parallelism_config":
            old = {key: properties[canonical] for key, canonical in LEGACY.items()}
            properties["parallel_kwargs"] = {
                "description": "The old place of the other keys.",
                "type": "object",
                "properties": {**properties, **old},
                "additionalProperties": False,
                "deprecated": True,
            }
        for key in properties:
            # A key without a value keeps its default.
            properties[key] = _or_null(properties[key])
        sections[name] = schema
    for schema in (sections["quantize_config"], definitions["ComponentQuantizeConfig"]):
        _accept_aliases(schema["properties"])
    for name, keys in ANY_CASE.items():
        properties = sections[name]["properties"]
        synonyms = SYNONYMS.get(name, {})
        for key in (*keys, *(other for other, key in synonyms.items() if key in keys)):
            properties[key]["anyOf"] = [*map(_in_any_case, properties[key]["anyOf"])]
    beside = TopLevel.model_json_schema()["properties"]
    _accept_attention_aliases(beside)
    flat = {"title": "Flat form", "allOf": [sections["cache_config"]]}
    sectioned = {
        "title": "Sections",
        "type": "object",
        "properties": {
            **sections,
            **{key: _or_null(schema) for key, schema in beside.items()},
        },
        "additionalProperties": False,
        "minProperties": 1,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Acceleration config of Cache-DiT and SGLang Diffusion, as ditplan reads it",
        "anyOf": [sectioned, flat],
        "$defs": definitions,
    }


def _accept_aliases(schema: Any) -> None:
    """Every choice between quantization types, however deep, takes their other names too."""
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict) and "float8_per_row" in inner.get("enum", ()):
            names = [*inner.pop("enum"), *QUANT_TYPES]
            inner.update(_in_any_case({**inner, "enum": names}))
        elif isinstance(inner, dict | list):
            _accept_aliases(inner)


def _accept_attention_aliases(properties: dict[str, Any]) -> None:
    for choice in properties.get("attention_backend", {}).get("anyOf", ()):
        if "enum" in choice:
            choice["enum"] = [*choice["enum"], *ALIASES]


def _in_any_case(schema: dict[str, Any]) -> dict[str, Any]:
    """A choice between texts that may be written in capitals, too; editors offer them as they are.

    Regular expressions of JSON Schema have no flag for that.
    """
    names = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if not names:
        return schema
    each = ("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in names)
    return {"type": "string", "anyOf": [{"enum": names}, {"pattern": f"^({'|'.join(each)})$"}]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    outer: dict[str, Any] = {
        key: schema[key] for key in ("description", "default", "deprecated") if key in schema
    }
    inner = {key: value for key, value in schema.items() if key not in (*outer, "title")}
    choices = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
    if {"type": "null"} not in choices:
        choices = [*choices, {"type": "null"}]
    return {**outer, "anyOf": choices}
