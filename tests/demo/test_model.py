"""The demo model as it is shipped, drawn with through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training.captions import scene_of
from training.scenes import evaluation_prompts
from training.score import Score, judge

from executor.engine.program import AdaptiveRule, Calibrator, OpKind, TaylorSeer
from executor.engine.run import RunSpec, run
from executor.placement.load import LoadedPipeline, load
from tests.executor.engine.programs import flux_program, uncached

MODEL = Path("deploy/demo/model")
PROMPTS = evaluation_prompts(6)
SIZE = 64


@pytest.fixture(scope="module")
def loaded() -> LoadedPipeline:
    return load(str(MODEL), served_name="demo")


def _draw(pipeline: Any, program: Any, seed: int) -> Any:
    return run(pipeline, program, RunSpec(PROMPTS[seed], SIZE, SIZE, seed))


def _pixels(result: Any) -> Any:
    return np.asarray(result.frames[0].convert("RGB"), dtype=np.float32) / 255


def test_it_is_small_and_names_no_place() -> None:
    files = [file for file in MODEL.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 12_000_000
    for file in files:
        if file.suffix == ".json":
            assert '"_name_or_path": "/' not in file.read_text()


def test_pictures_are_what_the_prompts_ask_for(loaded: LoadedPipeline) -> None:
    verdicts = []
    for seed, prompt in enumerate(PROMPTS):
        picture = _pixels(_draw(loaded.pipeline, uncached(28), seed))
        verdicts.append(judge(picture, scene_of(prompt)))
    assert Score.of(verdicts).right >= 5 / 6


def test_a_cache_saves_most_steps_and_keeps_the_picture(loaded: LoadedPipeline) -> None:
    rule = AdaptiveRule(0.12, max_continuous_cached_steps=2)
    program = flux_program(
        "1?1?1?1" + "?" * 21, rule=rule, calibrator=Calibrator(forecast=TaylorSeer(1))
    )
    result = _draw(loaded.pipeline, program, 0)
    computed = sum(op.kind is OpKind.FULL for step in result.steps if (op := step.ops[0]))
    assert computed < 18
    plain = _pixels(_draw(loaded.pipeline, uncached(28), 0))
    assert float(np.abs(_pixels(result) - plain).max()) < 0.1
    assert judge(_pixels(result), scene_of(PROMPTS[0])).right
