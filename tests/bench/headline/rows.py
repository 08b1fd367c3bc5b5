"""What the drawings of a setting say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.bench.headline.engines import Drawing
from tests.bench.headline.measures import closeness, fulfils
from tests.bench.headline.settings import (
    Engine,
    Row,
    Setting,
    ideal_speed_up,
    reference,
    row,
)
from tests.bench.report import Figure

Drawn = Mapping[Row, Drawing]


@dataclass(frozen=True, slots=True)
class Quality:
    """Against the uncached pictures; ``psnr`` and its tenth percentile are of those that differ.

    ``identical`` and ``fulfilled`` are shares of all pictures.
    """

    psnr: float | None
    psnr_p10: float | None
    ssim: float
    flip: float
    identical: float
    fulfilled: float


@dataclass(frozen=True, slots=True)
class Result:
    """One row over all prompts. ``of_ideal``: the speed-up in terms of what its steps promise."""

    row: Row
    computed: tuple[int, ...]
    speed_up: Figure
    of_ideal: Figure
    quality: Quality


def result(of: Row, drawn: Sequence[Drawn], prompts: Sequence[str]) -> Result:
    """``drawn``: what was drawn of each prompt."""
    drawings = [each[of] for each in drawn]
    whole = [each[reference(of.setting.of, of.process)] for each in drawn]
    computed = tuple(sum(drawing.computed) for drawing in drawings)
    ratios = [a.seconds / b.seconds for a, b in zip(whole, drawings, strict=True)]
    ideals = [ideal_speed_up(of.setting, steps) for steps in computed]
    return Result(
        of,
        computed,
        Figure.of(ratios, ".2f", "x"),
        Figure.of([a / b for a, b in zip(ratios, ideals, strict=True)], ".0%"),
        quality(whole, drawings, prompts),
    )


def quality(
    whole: Sequence[Drawing], drawings: Sequence[Drawing], prompts: Sequence[str]
) -> Quality:
    near = [closeness(a.pixels, b.pixels) for a, b in zip(whole, drawings, strict=True)]
    psnr = [each.psnr for each in near if each.psnr is not None]
    return Quality(
        psnr=statistics.mean(psnr) if psnr else None,
        psnr_p10=float(np.percentile(psnr, 10)) if psnr else None,
        ssim=statistics.mean(each.ssim for each in near),
        flip=statistics.mean(each.flip for each in near),
        identical=1 - len(psnr) / len(near),
        fulfilled=statistics.mean(
            fulfils(each.pixels, prompt) for each, prompt in zip(drawings, prompts, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the pictures that ditplan and cache-dit both drew: how many were made alike."""

    pictures: int
    same_steps: int
    same_pixels: int


def agreement(drawn: Sequence[Drawn], settings: Sequence[Setting]) -> Agreement:
    both = [
        (row(Engine.DITPLAN, setting), row(Engine.CACHE_DIT, setting))
        for setting in settings
        if setting.config
    ]
    pairs = [(each[a], each[b]) for a, b in both for each in drawn if a in each and b in each]
    return Agreement(
        len(pairs),
        sum(ours.computed == theirs.computed for ours, theirs in pairs),
        sum(np.array_equal(ours.pixels, theirs.pixels) for ours, theirs in pairs),
    )
