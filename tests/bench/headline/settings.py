"""What is compared: acceleration configs, and uncached runs of fewer steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.models.resolve import from_directory

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "deploy" / "demo" / "model"
SIZE = 64
STEPS = 28


class Engine(StrEnum):
    """What draws; diffusers draws what needs no cache."""

    DIFFUSERS = "diffusers"
    DITPLAN = "ditplan"
    CACHE_DIT = "cache-dit"


@dataclass(frozen=True, slots=True)
class Setting:
    """One acceleration config (YAML, empty for none) at a number of steps."""

    family: str
    name: str
    config: str = ""
    steps: int = STEPS

    @property
    def title(self) -> str:
        return f"{self.family} {self.name}".strip() if self.config else self.name

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Who can draw it: cache-dit without a cache is diffusers."""
        if self.config:
            return (Engine.DITPLAN, Engine.CACHE_DIT)
        if self.steps == STEPS:
            return (Engine.DIFFUSERS, Engine.DITPLAN)
        return (Engine.DIFFUSERS,)


def _cached(family: str, name: str, **keys: object) -> Setting:
    common = {"max_warmup_steps": 8, "Fn_compute_blocks": 1, "Bn_compute_blocks": 0}
    return Setting(family, name, json.dumps({"cache_config": common | keys}))


_TAYLORSEER = {"enable_taylorseer": True, "taylorseer_order": 1}
UNCACHED = Setting("uncached", "uncached")
SETTINGS = (
    UNCACHED,
    # What a cache has to beat: the same work spent on fewer steps.
    *(
        Setting("fewer steps, uncached", f"{steps} steps", steps=steps)
        for steps in (24, 20, 18, 15, 11, 8)
    ),
    *(
        _cached(family, f"{threshold}", residual_diff_threshold=threshold, **forecast)
        for family, forecast in (("DBCache", {}), ("DBCache + TaylorSeer", _TAYLORSEER))
        for threshold in (0.08, 0.12, 0.24)
    ),
    *(
        _cached(
            f"SCM {policy}",
            mask,
            residual_diff_threshold=0.12,
            num_inference_steps=STEPS,
            steps_computation_mask=mask,
            steps_computation_policy=policy,
            **_TAYLORSEER,
        )
        for policy in ("dynamic", "static")
        for mask in ("slow", "medium", "fast", "ultra")
    ),
    Setting("examples/cache.yaml", "", (ROOT / "deploy" / "examples" / "cache.yaml").read_text()),
)


class Row(NamedTuple):
    """A setting as an engine draws it."""

    engine: Engine
    setting: Setting


REFERENCE = Row(Engine.DIFFUSERS, UNCACHED)


def rows_of(engines: Sequence[str], titles: Sequence[str]) -> list[Row]:
    """The reference, and what the engines draw of the settings asked for (all, if none are)."""
    return [
        Row(engine, setting)
        for setting in SETTINGS
        if setting is UNCACHED or not titles or any(name in setting.title for name in titles)
        for engine in setting.engines
        if engine in (REFERENCE.engine, *engines)
    ]


@cache
def compiled(setting: Setting) -> Compilation:
    """What the planner makes of a setting for the demo model."""
    request = Request(num_inference_steps=setting.steps, height=SIZE, width=SIZE)
    compilation = compile_config(setting.config, from_directory(MODEL), request)
    assert compilation.program is not None, compilation.diagnostics
    return compilation
