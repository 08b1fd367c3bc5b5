"""Rows of pictures under their titles, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

TILE = 160
GAP = 8
TITLE = 26
BACKGROUND = "#ffffff"
INK = "#1f2328"


def contact_sheet(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """One row of tiles for each title, all scaled to the same size."""
    columns = max(len(row) for row in rows.values())
    width = GAP + columns * (TILE + GAP)
    height = GAP + len(rows) * (TITLE + TILE + GAP)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    y = GAP
    for title, row in rows.items():
        draw.text((GAP, y), title, fill=INK, font=font)
        y += TITLE
        for column, picture in enumerate(row):
            tile = picture.resize((TILE, TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, (GAP + column * (TILE + GAP), y))
        y += TILE + GAP
    return sheet
