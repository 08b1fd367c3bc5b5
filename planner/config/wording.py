"""The words of diagnostics: what a key takes, and what may have been meant."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from planner.config.schema import MAX_INT

_LONGEST_SHOWN = 60
_FEW_CHOICES = 12
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def allowed(info: FieldInfo, value: Any) -> str:
    """What a key takes, said to someone who gave ``value``."""
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "allowed" in extra:
        return str(extra["allowed"])
    return _describe(info.annotation, info.metadata, value)


def remedy(key: str, info: FieldInfo, value: Any) -> str:
    """A hint for a wrong value: a line to paste or a near miss; empty where neither is known."""
    meant = _meant(info.annotation, value)
    if meant is not None:
        return f"{key}: {as_yaml(meant)}"
    if isinstance(value, str):
        close = difflib.get_close_matches(value.lower(), _choices(info.annotation), n=1)
        return f"did you mean {close[0]}?" if close else ""
    return ""


def closest(word: str, known: tuple[str, ...], *, cutoff: float = 0.6) -> str | None:
    """The known word that a misspelt one was most likely meant to be."""
    # difflib is case-sensitive, people are not.
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def kind_of(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "empty"}
    return names.get(type(value), f"the value {shown(value)}")


def shown(value: Any) -> str:
    text = repr(value)
    if value is None or isinstance(value, bool):
        text = "null" if value is None else text.lower()
    elif isinstance(value, float) and not math.isfinite(value):
        text = text.replace("nan", ".nan").replace("inf", ".inf")
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def as_yaml(value: Any) -> str:
    """A plain value as YAML 1.1 reads it back: a number with an exponent needs a dot there."""
    if isinstance(value, bool):
        return str(value).lower()
    text = shown(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text


def _meant(annotation: Any, value: Any) -> int | float | None:
    """The number or truth value that a text (or a whole float) was meant to be."""
    types = set(_types(annotation))
    if isinstance(value, str) and bool in types and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool) or not isinstance(value, str | float) or not {int, float} & types:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if float in types:
        return number if isinstance(value, str) else None
    return int(number) if number.is_integer() else None


def _types(annotation: Any) -> Iterator[Any]:
    """Every plain type that an annotation lets through, however nested in unions."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
    elif origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _types(part)


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if isinstance(choice, str)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _describe(annotation: Any, metadata: list[Any], value: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *rest = get_args(annotation)
        constraints = [m for part in rest for m in getattr(part, "metadata", None) or [part]]
        return _describe(inner, constraints, value)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return (" or " if len(choices) <= _FEW_CHOICES else ", ").join(choices)
    if origin is list:
        return f"a list of: {_describe(get_args(annotation)[0], [], value)}"
    if origin in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return " or ".join(_describe(part, metadata, value) for part in parts)
    bounds = [
        f"{sign} {bound}"
        for m in metadata
        for sign, bound in _bounds(m)
        if abs(bound) < MAX_INT or (isinstance(value, int) and abs(value) > MAX_INT)
    ]
    return " ".join([_WORDS.get(annotation, "a mapping"), " and ".join(bounds)]).strip()


def _bounds(constraint: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(constraint, Ge):
        yield ">=", constraint.ge
    elif isinstance(constraint, Le):
        yield "<=", constraint.le
