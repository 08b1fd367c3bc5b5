"""Checks whether a picture fulfils its caption: background, colour, size, shape and place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from training.drawing import CENTRES, PALETTE, RADIUS, Array, bounds, coverage
from training.scenes import PICTURE_SIZE, Colour, Place, Scene, Shape, Size

_BORDER = 2
_LEAST_PIXELS = 60
_LEAST_OVERLAP = 0.75

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Verdict:
    """Which attributes of a picture are as its caption says; with two things, of both."""

    background: bool
    colour: bool
    shape: bool
    size: bool
    place: bool

    @property
    def right(self) -> bool:
        """Whether everything is."""
        return self.background and self.colour and self.shape and self.size and self.place


@dataclass(frozen=True)
class Score:
    """Share of pictures with each attribute right, 0 to 1, and with all of them right."""

    background: float
    colour: float
    shape: float
    size: float
    place: float
    right: float

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Score:
        """The mean of some verdicts."""
        kept = list(verdicts)
        names = ("background", "colour", "shape", "size", "place", "right")
        return cls(*(float(np.mean([getattr(v, name) for v in kept])) for name in names))

    def __str__(self) -> str:
        return ", ".join(f"{name} {100 * value:.0f} %" for name, value in vars(self).items())


def judge(picture: Array, scene: Scene) -> Verdict:
    """Looks for `scene` in a picture: (64, 64, 3) float32, 0 to 1."""
    names = list(Colour)
    colours = np.asarray([PALETTE[name] for name in names], dtype=np.float32)
    nearest = np.square(picture[:, :, None] - colours).sum(axis=-1).argmin(axis=-1)
    inner = np.zeros(nearest.shape, dtype=bool)
    inner[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    background = int(np.bincount(nearest[~inner]).argmax())
    found = [
        _find(np.where(area, nearest, background), background) for area in _areas(len(scene.things))
    ]
    pairs = list(zip(found, scene.things, strict=True))
    return Verdict(
        background=names[background] is scene.background,
        colour=all(seen is not None and seen.colour is thing.colour for seen, thing in pairs),
        shape=all(seen is not None and seen.shape is thing.shape for seen, thing in pairs),
        size=all(seen is not None and seen.size is thing.size for seen, thing in pairs),
        place=all(seen is not None and seen.place is thing.place for seen, thing in pairs),
    )


@dataclass(frozen=True)
class _Seen:
    """What was found in a picture; no shape where no outline fits."""

    colour: Colour
    shape: Shape | None
    size: Size
    place: Place


def _areas(things: int) -> list[Mask]:
    """The part of the picture each thing must be in: all of it, or the two halves."""
    if things == 1:
        return [np.ones((PICTURE_SIZE, PICTURE_SIZE), dtype=bool)]
    left = np.zeros((PICTURE_SIZE, PICTURE_SIZE), dtype=bool)
    left[:, : PICTURE_SIZE // 2] = True
    return [left, ~left]


def _find(nearest: npt.NDArray[np.int64], background: int) -> _Seen | None:
    mask = nearest != background
    columns, rows = (np.nonzero(mask.sum(axis=axis) > 1)[0] for axis in (0, 1))
    if mask.sum() < _LEAST_PIXELS or not len(columns) or not len(rows):
        return None
    colour = list(Colour)[int(np.bincount(nearest[mask]).argmax())]
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    fits = [_fit(mask, box, shape) for shape in Shape]
    overlap, shape, radius, x, y = max(fits)
    place = min(Place, key=lambda place: np.hypot(CENTRES[place][0] - x, CENTRES[place][1] - y))
    size = min(Size, key=lambda size: abs(np.log(RADIUS[size] / radius)))
    return _Seen(colour, shape if overlap > _LEAST_OVERLAP else None, size, place)


def _fit(
    mask: Mask, box: tuple[int, int, int, int], shape: Shape
) -> tuple[float, Shape, float, float, float]:
    """How well a shape of the mask's bounding box overlaps it; the shape, its radius, x and y."""
    left, top, right, bottom = bounds(shape)
    width, height = box[2] - box[0], box[3] - box[1]
    radius = (width / (right - left) + height / (bottom - top)) / 2
    x = (box[0] + box[2] - radius * (left + right)) / 2
    y = (box[1] + box[3] - radius * (top + bottom)) / 2
    fits = []
    for scale, move in product((1.0, 1.08, 1.16), (-1.0, 0.0, 1.0)):
        drawn = coverage(shape, x, y + move, radius * scale) > 0.5
        overlap = float((drawn & mask).sum() / (drawn | mask).sum())
        fits.append((overlap, shape, radius * scale, x, y + move))
    return max(fits)
