"""Known keys against their schema: typed values, or one diagnostic a key."""

from __future__ import annotations

import itertools
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from planner.config.acceleration import AccelerationConfig, dotted
from planner.config.attention import UNSUPPORTED as UNSUPPORTED_ATTENTION
from planner.config.document import Path
from planner.config.keys import report_unknown
from planner.config.schema import (
    Component,
    ComponentQuantizeConfig,
    MaskBins,
    QuantType,
    Section,
)
from planner.config.spellings import QUANT_TYPES
from planner.config.wording import allowed, closest, remedy, shown
from planner.diagnostics import Severity


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
