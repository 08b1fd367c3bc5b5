"""The first pictures of every setting beside their differences to the uncached ones."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.bench.headline.engines import Drawing, Pixels
from tests.bench.headline.settings import REFERENCE, Engine, Row

COLUMNS = 8
TILE = 80
GAP = 4
MARGIN = 16
LABEL = 230
HEAD = 116
AMPLIFIED = 10
INK, FAINT, PAPER = "#1f2328", "#656d76", "#ffffff"


def sheet(report: dict[str, Any], drawn: Sequence[Mapping[Row, Drawing]]) -> Image.Image:
    """One line for each setting; of those that two engines drew, what ditplan drew."""
    engines = {row.setting: row.engine for row in drawn[0] if row.engine is not Engine.CACHE_DIT}
    rows = [
        (stated, row)
        for stated, row in zip(report["rows"], drawn[0], strict=True)
        if engines.get(row.setting) is row.engine
    ]
    prompts = report["prompts"][:COLUMNS]
    half = len(prompts) * (TILE + GAP)
    right = LABEL + half + MARGIN
    image = Image.new(
        "RGB", (right + half + MARGIN, HEAD + len(rows) * (TILE + GAP) + MARGIN), PAPER
    )
    canvas = ImageDraw.Draw(image)
    title, small = (ImageFont.load_default(size=size) for size in (15, 11))
    canvas.text((LABEL, 10), "pictures, same seeds", fill=INK, font=title)
    canvas.text((right, 10), f"difference to uncached, {AMPLIFIED}-fold", fill=INK, font=title)
    for i, prompt in enumerate(prompts):
        words = "\n".join(textwrap.wrap(prompt, 14))
        canvas.text((LABEL + i * (TILE + GAP), 34), words, fill=FAINT, font=small, spacing=2)
    for j, (stated, row) in enumerate(rows):
        top = HEAD + j * (TILE + GAP)
        canvas.text((MARGIN, top + 14), stated["setting"], fill=INK, font=title)
        canvas.text((MARGIN, top + 36), _caption(stated), fill=FAINT, font=small, spacing=4)
        for i, pictures in enumerate(drawn[: len(prompts)]):
            picture, left = pictures[row].pixels, i * (TILE + GAP)
            image.paste(_tile(picture), (LABEL + left, top))
            error = _difference(pictures[REFERENCE].pixels, picture)
            image.paste(_tile(error), (right + left, top))
    return image


def _caption(row: dict[str, Any]) -> str:
    psnr = "" if row["psnr_mean"] is None else f", {row['psnr_mean']:.1f} dB"
    return f"{row['computed_mean']:.3g} steps computed\n{row['speed_up']:.2f}x{psnr}"


def _difference(reference: Pixels, picture: Pixels) -> Pixels:
    """Black where both are equal."""
    error = np.abs(reference.astype(np.int16) - picture) * AMPLIFIED
    return error.clip(0, 255).astype(np.uint8)


def _tile(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC)
