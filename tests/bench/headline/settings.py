"""What is compared: acceleration configs, and uncached runs of fewer steps."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

import yaml

from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.models.resolve import from_directory
from tests.bench import bound
from tests.bench.inputs import CONFIG, DEMO

SIZE = 64
WHOLE = (28, 50)
"""Steps of the uncached runs that everything is compared with."""


class Engine(StrEnum):
    """What draws; diffusers draws what needs no cache."""

    DIFFUSERS = "diffusers"
    DITPLAN = "ditplan"
    CACHE_DIT = "cache-dit"


@dataclass(frozen=True, slots=True)
class Setting:
    """One acceleration config (YAML, empty for none) or a number of steps.

    ``of``: the steps of the uncached run that it is compared with. ``claimed``: the speed-up that
    SGLang Diffusion's documentation names for it.
    """

    of: int
    family: str
    name: str
    config: str = ""
    steps: int = 0
    claimed: float | None = None

    @property
    def title(self) -> str:
        return f"{self.family} {self.name}".strip()

    @property
    def num_inference_steps(self) -> int:
        return self.steps or self.of

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Who can draw it: cache-dit without a cache is diffusers."""
        if self.config:
            return (Engine.DITPLAN, Engine.CACHE_DIT)
        return (Engine.DIFFUSERS,) if self.steps else (Engine.DIFFUSERS, Engine.DITPLAN)


class Row(NamedTuple):
    """A setting as an engine draws it.

    ``process``: in whose process. Processes differ by several percent in how fast they draw, so
    that each draws what its engine is compared with.
    """

    engine: Engine
    setting: Setting
    process: Engine


def row(engine: Engine, setting: Setting) -> Row:
    """In the engine's own process."""
    return Row(engine, setting, engine)


def reference(of: int, process: Engine = Engine.DIFFUSERS) -> Row:
    """Plain diffusers at all steps."""
    return Row(Engine.DIFFUSERS, Setting(of, "uncached", ""), process)


def rows(settings: Iterable[Setting], engines: Collection[Engine]) -> list[Row]:
    """What these engines draw, and what they are compared with."""
    own = [row(engine, each) for each in settings for engine in each.engines if engine in engines]
    whole = {each.of for each in settings}
    return own + [
        reference(of, engine) for of in whole for engine in engines if engine != Engine.DIFFUSERS
    ]


_EXAMPLE = yaml.safe_load(CONFIG.read_text())["cache_config"]
_DBCACHE = {"max_warmup_steps": 8, "Fn_compute_blocks": 1, "Bn_compute_blocks": 0}
_TAYLORSEER = {"enable_taylorseer": True, "taylorseer_order": 1}
SGLANG = {
    "max_warmup_steps": 4,
    "max_continuous_cached_steps": 3,
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "residual_diff_threshold": 0.24,
}
"""What ``SGLANG_CACHE_DIT_ENABLED=true`` alone means."""

CLAIMED = {"slow": 1.3, "medium": 2.0, "fast": 3.0, "ultra": 4.0}
"""Presets of the mask, with the speed-ups that are claimed for them."""


def settings(of: int) -> Iterator[Setting]:
    """Everything that is compared with an uncached run of ``of`` steps."""
    yield reference(of).setting
    # What a cache has to beat: the same work spent on fewer steps.
    for share in (0.86, 0.72, 0.64, 0.54, 0.4, 0.28):
        steps = round(share * of)
        yield Setting(of, "uncached", f"{steps} steps", steps=steps)
    yield Setting(of, "cache.yaml", "", _text(_EXAMPLE), claimed=1.69)
    for policy in ("dynamic", "static"):
        yield from _masked(of, f"cache.yaml, SCM {policy}", _EXAMPLE, policy)
    yield Setting(of, "SGLang's defaults", "", _text(SGLANG), claimed=1.69)
    yield from _masked(of, "SGLang's defaults, SCM dynamic", SGLANG, "dynamic")
    if of == WHOLE[0]:
        # How much is due to the threshold, and how much to the forecast.
        for family, forecast in (("DBCache", {}), ("DBCache + TaylorSeer", _TAYLORSEER)):
            for threshold in (0.08, 0.12, 0.24):
                keys = {**_DBCACHE, "residual_diff_threshold": threshold, **forecast}
                yield Setting(of, family, f"{threshold}", _text(keys))


def _masked(of: int, family: str, keys: dict[str, Any], policy: str) -> Iterator[Setting]:
    for mask, claimed in CLAIMED.items():
        scm = {"steps_computation_mask": mask, "steps_computation_policy": policy}
        text = _text({**keys, "num_inference_steps": of, **scm})
        yield Setting(of, family, mask, text, claimed=claimed)


def _text(keys: dict[str, Any]) -> str:
    return json.dumps({"cache_config": keys})


@cache
def compiled(setting: Setting) -> Compilation:
    """What the planner makes of a setting for the demo model."""
    steps = setting.num_inference_steps
    request = Request(num_inference_steps=steps, height=SIZE, width=SIZE)
    compilation = compile_config(setting.config, from_directory(DEMO), request)
    assert compilation.program is not None, compilation.diagnostics
    return compilation


def ideal_speed_up(setting: Setting, computed: int | None = None) -> float:
    """Of the uncached run, by floating point operations of the transformer alone.

    ``computed``: steps that computed every block; the fewest that the plan allows unless given.
    """
    estimate = compiled(setting).estimate
    assert estimate is not None
    assert estimate.cost is not None
    if computed is None:
        computed = estimate.min_computed_steps
    steps = setting.num_inference_steps
    return setting.of / steps * bound.ideal_speed_up(estimate.cost, steps, computed)
