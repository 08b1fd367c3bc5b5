"""Draws one picture with one engine; to be run in a process of the engine's own.

cache-dit patches the class of a pipeline, which another engine in the same process would meet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from executor.codec import program_from_proto
from executor.engine.program import OpKind
from executor.engine.run import RunSpec, run
from executor.placement.device import DeviceChoice
from executor.placement.load import load
from planner.codec import program_to_proto
from tests.bench.headline.settings import SIZE, Engine, Row, Setting, compiled
from tests.bench.inputs import DEMO

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Drawing:
    """``pixels``: (64, 64, 3). ``seconds`` from prompt to picture. ``computed``: by step.

    Seconds are of the process on its one thread: other work on the machine counts only in
    ``wall_seconds``.
    """

    pixels: Pixels
    seconds: float
    wall_seconds: float
    computed: tuple[bool, ...]


def prepare() -> None:
    """What a process does once, before it draws."""
    torch.set_num_threads(1)
    _pipeline()


def draw(row: Row, prompt: str, seed: int) -> Drawing:
    """The picture of a prompt; the same arguments give the same one."""
    match row.engine:
        case Engine.DIFFUSERS:
            return _with_diffusers(row.setting, prompt, seed)
        case Engine.DITPLAN:
            return _with_ditplan(row.setting, prompt, seed)
        case Engine.CACHE_DIT:
            return _with_cache_dit(row.setting, prompt, seed)


def _with_diffusers(setting: Setting, prompt: str, seed: int) -> Drawing:
    pipeline = _pipeline()
    output, *seconds = _timed(
        lambda: pipeline(
            prompt=prompt,
            height=SIZE,
            width=SIZE,
            max_sequence_length=pipeline.tokenizer_2.model_max_length,
            num_inference_steps=setting.num_inference_steps,
            generator=torch.Generator("cpu").manual_seed(seed),
        )
    )
    return Drawing(_pixels(output.images[0]), *seconds, (True,) * setting.num_inference_steps)


def _with_ditplan(setting: Setting, prompt: str, seed: int) -> Drawing:
    pipeline, program, spec = _pipeline(), _program(setting), RunSpec(prompt, SIZE, SIZE, seed)
    result, *seconds = _timed(lambda: run(pipeline, program, spec))
    computed = tuple(
        any(op.kind is OpKind.FULL for op in step.ops if op is not None) for step in result.steps
    )
    return Drawing(_pixels(result.frames[0]), *seconds, computed)


def _with_cache_dit(setting: Setting, prompt: str, seed: int) -> Drawing:
    logging.disable(logging.WARNING)
    import cache_dit

    pipeline = _pipeline()
    configs = cache_dit.load_configs(yaml.safe_load(setting.config))
    cache_dit.enable_cache(pipeline, **{key: value for key, value in configs.items() if value})
    try:
        drawing = _with_diffusers(setting, prompt, seed)
        stats = cache_dit.summary(pipeline, logging=False)
    finally:
        cache_dit.disable_cache(pipeline)
    (cached,) = {tuple(each.cached_steps) for each in stats}
    return replace(
        drawing, computed=tuple(i not in cached for i in range(setting.num_inference_steps))
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.process_time() - processor, time.perf_counter() - wall


def _pixels(image: Any) -> Pixels:
    return np.asarray(image.convert("RGB"))


@cache
def _pipeline() -> Any:
    return load(str(DEMO), device=DeviceChoice.CPU).pipeline


@cache
def _program(setting: Setting) -> Any:
    return program_from_proto(program_to_proto(compiled(setting).program))
