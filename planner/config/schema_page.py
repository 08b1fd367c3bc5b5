"""docs/yaml.md: every section and key of a config, from the schema and the tables beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic.fields import FieldInfo

from planner.config import attention, environment, spellings
from planner.config import schema_words as words
from planner.config.schema import (
    CacheConfig,
    ComponentQuantizeConfig,
    MaskBins,
    ParallelismConfig,
    QuantizeConfig,
    Section,
    TargetCacheConfig,
    TopLevel,
)
from planner.config.schema_faults import SECTIONS, TEXT, Fault
from planner.config.wording import allowed, as_yaml

_MASK_VARIABLES = ("SCM_PRESET", "SCM_COMPUTE_BINS", "SCM_CACHE_BINS")
_BACKEND_NAMES = "a name [of the list](#attention_backend)"


def page() -> str:
    """The page as Markdown."""
    blocks = [words.TOP, _faults(TEXT), *_sections(), "## Variables\n", words.VARIABLES]
    blocks += [_variables(), _faults(SECTIONS["variables"])]
    return "\n".join(blocks)


def _sections() -> Iterator[str]:
    yield from ("## cache_config\n", words.CACHE, _example("cache_config"))
    yield _keys(TargetCacheConfig)
    yield "Those are for `secondary`, too. These are for the section alone:\n"
    yield _keys(CacheConfig, without=TargetCacheConfig)
    yield "Of `steps_computation_mask` as a mapping:\n"
    yield _keys(MaskBins)
    yield from _ends("cache_config")
    yield from ("## parallelism_config\n", words.PARALLEL, _example("parallelism_config"))
    yield _keys(ParallelismConfig)
    yield from _ends("parallelism_config")
    yield from ("## quantize_config\n", words.QUANTIZE, _example("quantize_config"))
    yield _keys(QuantizeConfig)
    yield "Of a component in `components_to_quantize`; what is left out is as for all of them:\n"
    yield _keys(ComponentQuantizeConfig)
    yield from _ends("quantize_config")
    yield from ("## attention_backend\n", _backend_words(), _example("attention_backend"))
    yield from (_backends(), _faults(SECTIONS["attention_backend"]))
    refused = attention.UNSUPPORTED.items()
    rows = ((f"`{name}`", f"it {each.reason}", f"`{each.instead}`") for name, each in refused)
    yield "Names of diffusers and Cache-DiT that are refused:\n"
    yield _table(("name", "because", "instead"), rows)


def _ends(name: str) -> Iterator[str]:
    """What a section's part of the page ends with: faults, spellings, keys that are refused."""
    yield _faults(SECTIONS[name])
    other = {**spellings.SYNONYMS.get(name, {}), **spellings.MISSPELT.get(name, {})}
    if name == "parallelism_config":
        other |= {f"parallel_kwargs.{old}": key for old, key in spellings.LEGACY.items()}
        other["parallel_kwargs.KEY"] = "KEY"
    if name == "quantize_config":
        other = dict(spellings.QUANT_TYPES)
    if other:
        pairs = ", ".join(f"`{old}` for `{meant}`" for old, meant in other.items())
        yield f"Other spellings that are read: {pairs}.\n"
    yield "Keys of Cache-DiT that are refused, unless they say what is done anyway:\n"
    yield _table(
        ("key", "because it", "let through"),
        (
            (f"`{key}`", each.reason, _plain(each.harmless) or "–")
            for key, each in spellings.UNSUPPORTED[name].items()
        ),
    )


def _keys(section: type[Section], without: type[Section] | None = None) -> str:
    known = without.model_fields if without else {}
    variables = _variables_of_keys() if issubclass(section, TargetCacheConfig) else {}
    rows = [
        [f"`{key}`", _allowed(key, info), _default(info), info.description or ""]
        + ([variables.get(key, "")] if variables else [])
        for key, info in section.model_fields.items()
        if key not in known
    ]
    heads = ["key", "allowed", "default", "what it does", *(["variable"] if variables else [])]
    return _table(heads, rows)


def _allowed(key: str, info: FieldInfo) -> str:
    if key == "attention_backend":
        return _BACKEND_NAMES
    if key == "secondary":
        return "a mapping of the keys above"
    return allowed(info, None)


def _default(info: FieldInfo) -> str:
    value: Any = info.get_default()
    if info.is_required():
        return "must be given"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return "–" if value is None else _plain([value])


def _plain(values: Iterable[Any]) -> str:
    texts = (value if isinstance(value, str) else as_yaml(value) for value in values)
    return ", ".join(f"`{text}`" for text in texts)


def _variables_of_keys() -> dict[str, str]:
    named = {key: f"`{environment.PREFIX}{name}`" for name, key in environment.KEYS.items()}
    mask = " ".join(f"`{environment.PREFIX}{name}`" for name in _MASK_VARIABLES)
    return {**named, "steps_computation_mask": mask}


def _variables() -> str:
    rows = []
    for name in environment.KNOWN:
        if name.startswith("SECONDARY_"):
            continue
        key = environment.KEYS.get(name, "")
        default = ""
        if key:
            value = environment.DEFAULTS.get(key, CacheConfig.model_fields[key].default)
            default = _plain([value])
        mark = r" \*" if name in environment.TARGET_KEYS else ""
        what = f"`{key}`" if key else words.VARIABLES_WITHOUT_KEY[name]
        rows.append((f"`{environment.PREFIX}{name}`{mark}", what, default or "–"))
    return _table(("variable", "sets", "SGLang's default"), rows)


def _backend_words() -> str:
    described = TopLevel.model_fields["attention_backend"].description
    return (
        f"{described}\nIn `parallelism_config` it is the same and goes first. "
        "[placement.md](placement.md#attention-backends) says who has\nwhich.\n"
    )


def _backends() -> str:
    names = get_args(attention.AttentionBackend)
    others = {meant: f"also `{name}`" for name, meant in attention.ALIASES.items()}
    return _table(
        ("name", "with masked prompts", "in a `p2p` ring", ""),
        (
            (
                f"`{name}`",
                "no" if name in attention.REFUSES_MASKS else "yes",
                "yes" if name in attention.MERGES_PARTS else "no",
                others.get(name, ""),
            )
            for name in names
        ),
    )


def _example(name: str) -> str:
    return f"```yaml\n{words.EXAMPLES[name]}```\n"


def _faults(faults: Iterable[Fault]) -> str:
    rows = (
        (f"`{fault.code}`", "refused" if fault.refused else "warned", fault.keys, fault.why)
        for fault in faults
    )
    return _table(("code", "", "of", "why"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{text}\n"
