"""``SGLANG_CACHE_DIT_*`` variables as an input: what they set of a ``cache_config``.

A file goes before them, key by key: they fill what its ``cache_config`` leaves out. Where the text
has no ``cache_config``, what no variable sets has the default of SGLang, not the one of the YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from planner.config.acceleration import AccelerationConfig
from planner.config.document import Path
from planner.config.load import load
from planner.config.schema import CacheConfig, MaskBins, TargetCacheConfig
from planner.config.wording import allowed, closest, remedy, shown
from planner.diagnostics import Diagnostic, Severity, has_errors

PREFIX = "SGLANG_CACHE_DIT_"

_ENABLED, _PRESET = "ENABLED", "SCM_PRESET"
_COMPUTE_BINS, _CACHE_BINS = "SCM_COMPUTE_BINS", "SCM_CACHE_BINS"
_SECONDARY = "SECONDARY_"
_BASE: Path = ("cache_config",)
_SECOND: Path = ("cache_config", "secondary")
_MASK = "steps_computation_mask"
_PRESETS = ("none", "slow", "medium", "fast", "ultra")

TARGET_KEYS: Mapping[str, str] = {
    "FN": "Fn_compute_blocks",
    "BN": "Bn_compute_blocks",
    "WARMUP": "max_warmup_steps",
    "RDT": "residual_diff_threshold",
    "MC": "max_continuous_cached_steps",
    "TAYLORSEER": "enable_taylorseer",
    "TS_ORDER": "taylorseer_order",
    "DMD": "enable_dmd",
    "DMD_HISTORY": "dmd_history",
    "DMD_RANK": "dmd_rank",
    "DMD_RIDGE": "dmd_ridge",
    "DMD_SVD_PRECISION": "dmd_svd_precision",
}
KEYS = {**TARGET_KEYS, "SCM_POLICY": "steps_computation_policy"}
KNOWN = (
    _ENABLED,
    *KEYS,
    _PRESET,
    _COMPUTE_BINS,
    _CACHE_BINS,
    *(_SECONDARY + name for name in TARGET_KEYS),
)
DEFAULTS: Mapping[str, Any] = {
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "max_warmup_steps": 4,
    "residual_diff_threshold": 0.24,
    "max_continuous_cached_steps": 3,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a variable sets: a key of the config at ``path``."""

    path: Path
    value: Any
    variable: str


def variables_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of a process's variables that are about the cache."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIX)}


def apply_environment(config: AccelerationConfig, environment: Mapping[str, str]) -> None:
    """Fills in what the config leaves out, if the variables enable the cache.

    Faults of variables are reported to the config, which then stays as it is.
    """
    reader = _Reader(variables_of(environment))
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
        _BASE: written.model_fields_set,
        _SECOND: written.model_fields_set | of_second.model_fields_set,
    }
    base: dict[str, Any] = {} if config.cache else dict(DEFAULTS)
    second: dict[str, Any] = {}
    variables: dict[Path, str] = {}
    for setting in settings:
        section, key = setting.path[:-1], str(setting.path[-1])
        if key in given[section]:
            _note_overridden(
                config, setting, section if key in of_second.model_fields_set else _BASE
            )
            continue
        values = base if section == _BASE else second
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


@dataclass(slots=True)
class _Reader:
    """Reads variables into settings; every fault is a diagnostic of its own."""

    variables: Mapping[str, str]
    enabled: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def read(self) -> list[Setting]:
        """What the variables set, whether or not they enable the cache."""
        self._check_names()
        enabled = self._get(_ENABLED)
        if enabled is not None:
            value = _plain(bool, enabled)
            self.enabled = value is True
            if value is enabled:
                self._refuse(_ENABLED, enabled, "true or false", f"{PREFIX}{_ENABLED}=true")
                return []
        if not self.enabled:
            self._note_disabled()
            return []
        settings = self._settings(_BASE, "", KEYS)
        settings += self._settings(_SECOND, _SECONDARY, TARGET_KEYS)
        return settings + self._mask()

    def _get(self, name: str) -> str | None:
        return self.variables.get(PREFIX + name)

    def _check_names(self) -> None:
        for variable in self.variables:
            name = variable.removeprefix(PREFIX)
            if name in KNOWN:
                continue
            close = closest(name, KNOWN)
            hint = f"did you mean {PREFIX}{close}?" if close else f"known: {', '.join(KNOWN)}"
            self._report(Severity.ERROR, "unknown-variable", name, "is no known variable", hint)

    def _note_disabled(self) -> None:
        names = [PREFIX + name for name in KNOWN if name != _ENABLED and self._get(name)]
        if names:
            self._report(
                Severity.HINT,
                "variables-without-effect",
                _ENABLED,
                f"is not true, so that {', '.join(names)} {_do(names)} nothing",
                f"{PREFIX}{_ENABLED}=true",
            )

    def _settings(self, section: Path, prefix: str, keys: Mapping[str, str]) -> list[Setting]:
        found = []
        for name, key in keys.items():
            text = self._get(prefix + name)
            if text is None:
                continue
            info = CacheConfig.model_fields[key]
            value = _plain(info.annotation, text)
            try:
                CacheConfig.model_validate({key: value})
            except ValidationError:
                hint = remedy(key, info, value).replace(f"{key}: ", f"{PREFIX}{prefix}{name}=")
                if info.annotation is bool:
                    hint = f"{PREFIX}{prefix}{name}=true"
                self._refuse(prefix + name, value, allowed(info, value), hint)
            else:
                found.append(Setting((*section, key), value, PREFIX + prefix + name))
        return found

    def _mask(self) -> list[Setting]:
        """The mask of the bins, or else of the preset."""
        preset = self._get(_PRESET)
        if preset is not None and preset not in _PRESETS:
            close = closest(preset, _PRESETS)
            hint = f"did you mean {close}?" if close else ""
            self._refuse(_PRESET, preset, ", ".join(_PRESETS), hint)
        bins = {
            "compute_bins": self._bins(_COMPUTE_BINS),
            "cache_bins": self._bins(_CACHE_BINS),
        }
        if all(value is not None for value in bins.values()):
            mask = MaskBins.model_validate(bins)
            return [Setting((*_BASE, _MASK), mask, PREFIX + _COMPUTE_BINS)]
        names = [name for name in (_COMPUTE_BINS, _CACHE_BINS) if self._get(name) is not None]
        if len(names) == 1:
            missing = _CACHE_BINS if names == [_COMPUTE_BINS] else _COMPUTE_BINS
            self._report(
                Severity.WARNING,
                "one-bin-list",
                names[0],
                f"has no effect without {PREFIX}{missing}; {PREFIX}{_PRESET} decides "
                f"({preset or 'none'})",
                f"set {PREFIX}{missing} too",
            )
        if preset in (None, "none"):
            return []
        return [Setting((*_BASE, _MASK), preset, PREFIX + _PRESET)]

    def _bins(self, name: str) -> list[int] | None:
        text = self._get(name)
        if text is None:
            return None
        key = "compute_bins" if name == _COMPUTE_BINS else "cache_bins"
        try:
            bins = [int(part) for part in text.split(",")]
            MaskBins.model_validate({"compute_bins": [1], "cache_bins": [], key: bins})
        except ValueError:
            counts = "counts of at least 0 with commas between them"
            self._refuse(name, text, counts, f"{PREFIX}{name}=8,3,3,2")
            return None
        return bins

    def _refuse(self, name: str, value: Any, what: str, hint: str) -> None:
        message = f"{shown(value)} is not allowed; allowed: {what}"
        self._report(Severity.ERROR, "invalid-value", name, message, hint)

    def _report(self, severity: Severity, code: str, name: str, message: str, hint: str) -> None:
        self.diagnostics.append(Diagnostic(severity, code, PREFIX + name, message, hint))


def _plain(kind: Any, text: str) -> Any:
    """The value that a text stands for; the text itself where it is none of the kind."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _do(names: list[str]) -> str:
    return "does" if len(names) == 1 else "do"
