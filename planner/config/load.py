"""From text to a typed config, with what is wrong with it. The legacy flat form is one, too."""

from __future__ import annotations

import itertools
from typing import Any

from planner.config.acceleration import AccelerationConfig
from planner.config.canonical import attention_backend
from planner.config.document import Document, DocumentError, parse
from planner.config.keys import SECTIONS, TOP_LEVEL, first_few, report_unknown
from planner.config.schema import CacheConfig, TopLevel
from planner.config.section import load_section
from planner.config.spellings import MISSPELT, UNSUPPORTED
from planner.config.validation import validated
from planner.config.wording import closest, kind_of
from planner.diagnostics import Severity

_MAX_ODD_NUMBERS = 20


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
            f"the config is {kind_of(root)}, not a mapping with sections",
            f"sections: {', '.join(TOP_LEVEL)}",
        )
    elif not root or _looks_flat(root):
        # The legacy form: the whole file is a cache_config.
        config.flat = True
        load_section(config, "cache_config", root)
    else:
        _load_sections(config, root)
    _note_odd_numbers(config)
    return config


def _note_odd_numbers(config: AccelerationConfig) -> None:
    odd = itertools.islice(config.document.odd_numbers.items(), _MAX_ODD_NUMBERS)
    for inner, (text, value) in odd:
        path = ("cache_config", *inner) if config.flat else inner
        hint = str(value) if isinstance(path[-1], int) else f"{path[-1]}: {value}"
        config.report(
            Severity.WARNING,
            "odd-number",
            path,
            f"{text} is read as {value}, as YAML 1.1 has it",
            hint,
        )


def _looks_flat(root: dict[str, Any]) -> bool:
    keys = first_few(root)
    if any(key in root for key in TOP_LEVEL) or _any_close(keys, TOP_LEVEL):
        return False
    cache = (*CacheConfig.model_fields, *MISSPELT["cache_config"], *UNSUPPORTED["cache_config"])
    return _any_close(keys, cache)


def _any_close(keys: tuple[str, ...], known: tuple[str, ...]) -> bool:
    return any(closest(key, known, cutoff=0.8) for key in keys)


def _load_sections(config: AccelerationConfig, root: dict[str, Any]) -> None:
    report_unknown(config, (), [key for key in root if key not in TOP_LEVEL], TOP_LEVEL)
    for name in SECTIONS:
        if name in root:
            load_section(config, name, root[name])
    beside = {
        key: attention_backend(config, (key,), root[key])
        for key in TopLevel.model_fields
        if key in root
    }
    top = validated(config, (), TopLevel, beside)
    if isinstance(top, TopLevel):
        config.attention_backend = top.attention_backend or ""
