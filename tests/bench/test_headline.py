"""The quality bench from end to end, with few rows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXTRA = ("flip_evaluator", "matplotlib", "skimage")
PEER = find_spec("cache_dit") is not None
pytestmark = [
    pytest.mark.skipif(not all(map(find_spec, EXTRA)), reason="needs the bench extra"),
    # Two processes load torch and the demo model, which takes long on a busy machine.
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short run writes. Only cache-dit, which patches classes, is in another process."""
    from training.scenes import evaluation_prompts

    from tests.bench.headline.output import write
    from tests.bench.headline.report import report
    from tests.bench.headline.schedule import draw_all, processes
    from tests.bench.headline.settings import Engine, rows_of

    path, prompts = tmp_path_factory.mktemp("quality"), evaluation_prompts(2)
    peer = [Engine.CACHE_DIT] if PEER else []
    with ThreadPoolExecutor(1) as here, processes(peer) as started:
        executors = {Engine.DIFFUSERS: here, Engine.DITPLAN: here, **started}
        rows = rows_of([Engine.DITPLAN, *peer], ["SCM static fast"])
        drawn = list(draw_all(executors, rows, prompts))
    write(report(drawn, prompts), drawn, path)
    return path


@pytest.fixture(scope="module")
def rows(out: Path) -> dict[tuple[str, str], Any]:
    report = json.loads((out / "quality.json").read_text())
    return {(row["engine"], row["setting"]): row for row in report["rows"]}


def test_a_plan_that_computes_everything_draws_what_diffusers_draws(rows: Any) -> None:
    for engine in ("diffusers", "ditplan"):
        row = rows[engine, "uncached"]
        assert (row["computed_min"], row["computed_max"]) == (28, 28)
        assert row["block_share"] == 1
        assert row["identical"] == 2
        assert row["psnr_mean"] is None
        assert (row["ssim_mean"], row["flip_mean"]) == (1, 0)
    assert rows["diffusers", "uncached"]["speed_up"] == 1


def test_a_mask_is_followed_and_its_cost_shows(rows: Any) -> None:
    row = rows["ditplan", "SCM static fast"]
    assert (row["computed_min"], row["computed_max"]) == (11, 11)
    assert row["block_share"] == pytest.approx((11 + 17 / 14) / 28)
    assert row["identical"] == 0
    assert 30 < row["psnr_p10"] <= row["psnr_mean"] < 70
    assert 0.9 < row["ssim_mean"] < 1
    assert 0 < row["flip_mean"] < 0.1
    assert row["fulfilled"] == 1


@pytest.mark.skipif(not PEER, reason="cache-dit is not installed")
def test_the_peer_computes_the_same_steps(rows: Any) -> None:
    ours, theirs = (rows[engine, "SCM static fast"] for engine in ("ditplan", "cache-dit"))
    assert [p["computed"] for p in ours["pictures"]] == [p["computed"] for p in theirs["pictures"]]
    assert ours["psnr_mean"] == pytest.approx(theirs["psnr_mean"], abs=0.5)


@pytest.mark.parametrize("name", ["contact-sheet.png", "quality.png"])
def test_pictures_are_written(out: Path, name: str) -> None:
    with Image.open(out / name) as picture:
        assert len(np.unique(np.asarray(picture))) > 16


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
