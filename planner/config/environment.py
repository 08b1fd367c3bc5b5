"""``SGLANG_CACHE_DIT_*`` variables as an input: what they set of a ``cache_config``.

A file goes before them, key by key: they fill what its ``cache_config`` leaves out. Where the text
has no ``cache_config``, what no variable sets has the default of SGLang, not the one of the YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from planner.config.acceleration import AccelerationConfig
from planner.config.document import Path
from planner.config.load import load
from planner.config.schema import CacheConfig, TargetCacheConfig
from planner.config.variables import BASE, DEFAULTS, SECOND, Reader, Setting, variables_of
from planner.diagnostics import Diagnostic, Severity, has_errors


def apply_environment(config: AccelerationConfig, environment: Mapping[str, str]) -> None:
    """Fills in what the config leaves out, if the variables enable the cache.

    Faults of variables are reported to the config, which then stays as it is.
    """
    reader = Reader(variables_of(environment))
    settings = reader.read()
    config.diagnostics += reader.diagnostics
    if reader.enabled and not has_errors(config.diagnostics):
        _merge(config, settings)


def effective_text(text: str, environment: Mapping[str, str]) -> tuple[str, tuple[Diagnostic, ...]]:
    """A config that means without the variables what ``text`` means with them.

    It is ``text`` itself where no variable has a say, or where something is wrong. What there is to
    say of the variables comes with it.
    """
    config = load(text)
    before, known = config.cache, len(config.diagnostics)
    apply_environment(config, environment)
    found = tuple(config.diagnostics[known:])
    if config.cache is None or config.cache == before or has_errors(config.diagnostics):
        return text, found
    root = {} if config.flat else dict(config.document.value or {})
    root["cache_config"] = config.cache.model_dump(exclude_unset=True)
    return json.dumps(root, indent=1, ensure_ascii=False) + "\n", found


def _merge(config: AccelerationConfig, settings: list[Setting]) -> None:
    written = config.cache or CacheConfig()
    of_second = written.secondary or TargetCacheConfig()
    # A key that the file gives is for both transformers, unless it gives another for the second.
    given = {
        BASE: written.model_fields_set,
        SECOND: written.model_fields_set | of_second.model_fields_set,
    }
    base: dict[str, Any] = {} if config.cache else dict(DEFAULTS)
    second: dict[str, Any] = {}
    variables: dict[Path, str] = {}
    for setting in settings:
        section, key = setting.path[:-1], str(setting.path[-1])
        if key in given[section]:
            _note_overridden(
                config, setting, section if key in of_second.model_fields_set else BASE
            )
            continue
        values = base if section == BASE else second
        values[key] = setting.value
        variables[setting.path] = setting.variable
        # Unlike the YAML, SGLang forecasts the encoder stream too.
        encoder = "enable_encoder_taylorseer"
        if key == "enable_taylorseer" and setting.value and encoder not in given[section]:
            values[encoder] = True
            variables[*section, encoder] = setting.variable
    if second:
        base["secondary"] = of_second.model_copy(update=second)
    config.cache = written.model_copy(update=base)
    config.variables = variables


def _note_overridden(config: AccelerationConfig, setting: Setting, section: Path) -> None:
    line, _ = config.place((*section, setting.path[-1]))
    config.diagnostics.append(
        Diagnostic(
            Severity.HINT,
            "variable-overridden",
            setting.variable,
            f"has no effect: line {line} of the config gives {setting.path[-1]}",
        )
    )
