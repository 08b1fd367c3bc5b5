"""Where every effective value of a compilation comes from: request, file, variable or default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.compile.request import Request
from planner.config.acceleration import AccelerationConfig, dotted
from planner.config.document import Path
from planner.config.schema import Section

REQUEST, FILE, DEFAULT = "request", "file", "default"


@dataclass(frozen=True, slots=True)
class Source:
    """An effective value and its origin.

    ``origin`` is ``request``, ``file`` (with the 1-based ``line``), ``default`` or the name of an
    environment variable. ``key`` is the path in the config, or a field of the request.
    """

    key: str
    value: Any
    origin: str
    line: int = 0


def request_sources(asked: Request, effective: Request, config: AccelerationConfig) -> list[Source]:
    """Of what the caller asked for, as it runs; the step count may be the file's."""
    found = []
    for key in ("num_inference_steps", "height", "width", "num_frames", "guidance_scale"):
        value = getattr(effective, key)
        if value is None:
            continue
        origin, line = REQUEST if getattr(asked, key) is not None else DEFAULT, 0
        steps = config.cache and config.cache.num_inference_steps
        if key == "num_inference_steps" and origin is DEFAULT and steps is not None:
            origin, line = FILE, config.place(("cache_config", key))[0]
        found.append(Source(key, value, origin, line))
    return found


def config_sources(config: AccelerationConfig) -> list[Source]:
    """Of every key of the sections that the config has, in the order of the schema."""
    sections = {
        "cache_config": config.cache,
        "parallelism_config": config.parallelism,
        "quantize_config": config.quantize,
    }
    found = [
        source
        for name, section in sections.items()
        if section is not None
        for source in _section_sources(config, (name,), section)
    ]
    if config.attention_backend:
        line, _ = config.place(("attention_backend",))
        found.append(Source("attention_backend", config.attention_backend, FILE, line))
    return found


def _section_sources(config: AccelerationConfig, path: Path, section: Section) -> list[Source]:
    found = []
    for key in type(section).model_fields:
        inner, value = (*path, key), getattr(section, key)
        if key == "secondary":
            if value is not None:
                second = _section_sources(config, inner, value)
                found += [source for source in second if source.origin != DEFAULT]
        # The steps of a run are the request's to say.
        elif key != "num_inference_steps":
            line, _ = config.place(inner)
            given = key in section.model_fields_set and line > 0
            origin = config.variables.get(inner) or (FILE if given else DEFAULT)
            found.append(Source(dotted(inner), value, origin, line if origin is FILE else 0))
    return found
