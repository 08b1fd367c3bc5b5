"""What the drawings of all rows say, as numbers that can be stored."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tests.bench.headline.engines import Drawing
from tests.bench.headline.measures import closeness, fulfils
from tests.bench.headline.settings import REFERENCE, STEPS, Engine, Row, compiled


def report(drawn: Sequence[Mapping[Row, Drawing]], prompts: Sequence[str]) -> dict[str, Any]:
    """Every row against diffusers alone, which draws the same prompts with the same seeds."""
    columns = {row: [each[row] for each in drawn] for row in drawn[0]}
    return {
        "model": "deploy/demo/model",
        "steps": STEPS,
        "prompts": list(prompts),
        "rows": [
            _row(row, drawings, columns[REFERENCE], prompts) for row, drawings in columns.items()
        ],
        "engines": _agreement(columns),
    }


def _row(
    row: Row, drawings: Sequence[Drawing], reference: Sequence[Drawing], prompts: Sequence[str]
) -> dict[str, Any]:
    compilation = compiled(row.setting)
    assert compilation.program is not None
    assert compilation.estimate is not None
    assert compilation.estimate.cost is not None
    near = [closeness(a.pixels, b.pixels) for a, b in zip(reference, drawings, strict=True)]
    psnr = [each.psnr for each in near if each.psnr is not None]
    computed = [sum(drawing.computed) for drawing in drawings]
    (column,) = compilation.program.columns
    blocks = sum(
        blocks.num_blocks
        for target in compilation.program.model.targets
        for blocks in target.block_lists
    )
    kept = (column.fn_compute_blocks + column.bn_compute_blocks) / blocks
    cached = row.setting.steps - statistics.mean(computed)
    return {
        "engine": row.engine.value,
        "setting": row.setting.title,
        "family": row.setting.family,
        "name": row.setting.name,
        "config": row.setting.config,
        "steps": row.setting.steps,
        "computed_mean": statistics.mean(computed),
        "computed_min": min(computed),
        "computed_max": max(computed),
        "block_share": (statistics.mean(computed) + cached * kept) / STEPS,
        "speed_up": _ratio([each.seconds for each in reference], [d.seconds for d in drawings]),
        "wall_speed_up": _ratio(
            [each.wall_seconds for each in reference], [d.wall_seconds for d in drawings]
        ),
        "ideal_speed_up": compilation.estimate.cost.max_speedup * STEPS / row.setting.steps,
        "psnr_mean": statistics.mean(psnr) if psnr else None,
        "psnr_p10": float(np.percentile(psnr, 10)) if psnr else None,
        "identical": len(near) - len(psnr),
        "ssim_mean": statistics.mean(each.ssim for each in near),
        "flip_mean": statistics.mean(each.flip for each in near),
        "fulfilled": statistics.mean(
            fulfils(d.pixels, prompt) for d, prompt in zip(drawings, prompts, strict=True)
        ),
        "pictures": [
            {
                "seconds": round(drawing.seconds, 4),
                "wall_seconds": round(drawing.wall_seconds, 4),
                "computed": "".join("01"[each] for each in drawing.computed),
                **asdict(each),
            }
            for drawing, each in zip(drawings, near, strict=True)
        ],
    }


def _ratio(reference: Sequence[float], seconds: Sequence[float]) -> float:
    """How many times faster than the reference, as the median over prompts."""
    return statistics.median(a / b for a, b in zip(reference, seconds, strict=True))


def _agreement(columns: Mapping[Row, Sequence[Drawing]]) -> dict[str, Any]:
    """Of the configs that both engines drew: how often they did the same."""
    pairs = [
        (ours, theirs)
        for row, drawings in columns.items()
        if row.engine is Engine.CACHE_DIT
        for ours, theirs in zip(
            columns.get(Row(Engine.DITPLAN, row.setting), ()), drawings, strict=False
        )
    ]
    return {
        "pictures": len(pairs),
        "same_steps": sum(ours.computed == theirs.computed for ours, theirs in pairs),
        "same_pixels": sum(np.array_equal(ours.pixels, theirs.pixels) for ours, theirs in pairs),
    }
