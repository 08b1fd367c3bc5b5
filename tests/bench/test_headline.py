"""Quality and speed from pictures to findings, with few rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

EXTRA = ("flip_evaluator", "skimage")
PEER = find_spec("cache_dit") is not None
pytestmark = [
    pytest.mark.skipif(not all(map(find_spec, EXTRA)), reason="needs the bench extra"),
    # Two processes load torch and the demo model, which takes long on a busy machine.
    pytest.mark.timeout(400),
]

TITLES = ("uncached", "uncached 15 steps", "cache.yaml, SCM static fast")


@pytest.fixture(scope="module")
def results() -> dict[Any, Any]:
    """Of a few rows. Only cache-dit, which patches classes, is in another process."""
    from training.scenes import evaluation_prompts

    from tests.bench.headline.rows import result
    from tests.bench.headline.schedule import draw_all, processes
    from tests.bench.headline.settings import Engine, rows, settings

    prompts = evaluation_prompts(2)
    peer = [Engine.CACHE_DIT] if PEER else []
    with ThreadPoolExecutor(1) as here, processes(peer) as started:
        executors = {Engine.DIFFUSERS: here, Engine.DITPLAN: here, **started}
        chosen = [setting for setting in settings(28) if setting.title in TITLES]
        drawing = rows(chosen, list(executors))
        drawn = list(draw_all(executors, drawing, prompts))
    found = [result(row, drawn, prompts) for row in drawing if row.engine is row.process]
    return {(each.row.engine.value, each.row.setting.title): each for each in found}


def test_a_plan_that_computes_everything_draws_what_diffusers_draws(results: Any) -> None:
    for engine in ("diffusers", "ditplan"):
        found = results[engine, "uncached"]
        assert found.computed == (28, 28)
        assert found.quality.identical == 1
        assert found.quality.psnr is None
        assert (found.quality.ssim, found.quality.flip) == (1, 0)
    assert results["diffusers", "uncached"].speed_up.value == 1


def test_a_mask_is_followed_and_its_cost_shows(results: Any) -> None:
    found = results["ditplan", "cache.yaml, SCM static fast"]
    assert found.computed == (11, 11)
    assert found.quality.identical == 0
    assert 30 < found.quality.psnr_p10 <= found.quality.psnr < 70
    assert 0.9 < found.quality.ssim < 1
    assert 0 < found.quality.flip < 0.1
    assert found.quality.fulfilled == 1


@pytest.mark.skipif(not PEER, reason="cache-dit is not installed")
def test_the_peer_computes_the_same_steps(results: Any) -> None:
    ours, theirs = (
        results[engine, "cache.yaml, SCM static fast"] for engine in ("ditplan", "cache-dit")
    )
    assert ours.computed == theirs.computed
    assert ours.quality.psnr == pytest.approx(theirs.quality.psnr, abs=0.5)


def test_findings_have_a_row_for_every_setting(results: Any) -> None:
    from tests.bench.headline.findings import findings
    from tests.bench.headline.rows import Agreement

    by_row = {found.row: found for found in results.values()}
    table, *_ = findings(by_row, Agreement(0, 0, 0), prompts=2).tables
    lines = {str(row[0]): row for row in table.rows}
    assert set(lines) == {"uncached, 28 steps", *TITLES[1:]}
    fast = lines["cache.yaml, SCM static fast"]
    assert fast[1:5] == ("11", "3x", "2.28x", "2.28x")


def test_the_bound_of_fewer_steps_is_their_share() -> None:
    from tests.bench.headline.settings import ideal_speed_up, settings

    found = {setting.title: ideal_speed_up(setting) for setting in settings(28)}
    assert found["uncached 15 steps"] == pytest.approx(28 / 15)
    assert found["uncached"] == 1
    assert found["cache.yaml, SCM static ultra"] < 28 / 8


def test_sglangs_defaults_are_what_its_variables_mean() -> None:
    from planner.compile.compiler import compile_config
    from planner.models.resolve import from_directory
    from tests.bench.headline.settings import Request, compiled, settings
    from tests.bench.inputs import DEMO

    (setting,) = [each for each in settings(28) if each.title == "SGLang's defaults"]
    request = Request(num_inference_steps=28, height=64, width=64)
    environment = {"SGLANG_CACHE_DIT_ENABLED": "true"}
    by_variables = compile_config("", from_directory(DEMO), request, environment)
    assert by_variables.program == compiled(setting).program


def test_a_config_is_held_against_fewer_steps_of_its_speed() -> None:
    from tests.bench.headline.findings import interpolated

    control = [(1.0, 60.0), (3.0, 40.0), (2.0, 50.0)]
    assert interpolated(1.5, control) == 55
    assert interpolated(2.5, control) == 45
    assert (interpolated(0.5, control), interpolated(4, control)) == (60, 40)


def test_measures_tell_near_from_far() -> None:
    from tests.bench.headline.measures import closeness

    rng = np.random.default_rng(0)
    picture = rng.integers(40, 200, (64, 64, 3)).astype(np.uint8)
    noise = rng.integers(-8, 9, picture.shape)
    same, near, far = (closeness(picture, (picture + k * noise).astype(np.uint8)) for k in range(3))
    assert (same.psnr, same.ssim, same.flip) == (None, pytest.approx(1), pytest.approx(0))
    assert near.psnr is not None
    assert far.psnr == pytest.approx(near.psnr - 20 * np.log10(2))
    assert near.ssim > far.ssim
    assert near.flip < far.flip
