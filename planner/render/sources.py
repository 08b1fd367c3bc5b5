"""Where the values of a compilation come from, one a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from planner.compile.sources import Source
from planner.config.schema import Section
from planner.config.wording import as_yaml
from planner.render.canvas import Canvas

_MAX_ORIGIN = 40


def render_sources(sources: Sequence[Source], canvas: Canvas) -> list[str]:
    """The origin, then key and value as a file would have them; defaults are dim."""
    origins = [f"line {source.line}" if source.line else source.origin for source in sources]
    left = min(max(map(len, origins), default=0), _MAX_ORIGIN) + 4
    lines: list[str] = []
    for source, origin in zip(sources, origins, strict=True):
        text = canvas.show(f"{source.key}: {written(source.value)}")
        start = f"  {origin}".ljust(left)
        found = canvas.wrap(text, first=start, rest=" " * left)
        lines += map(canvas.dim, found) if source.origin == "default" else found
    return lines


def written(value: Any) -> str:
    """A value as a file has it: JSON, which is YAML, with plain strings bare."""
    value = plain(value)
    if isinstance(value, float):
        return as_yaml(value)
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, Section):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
