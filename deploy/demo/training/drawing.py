"""Draws scenes as pictures from signed distance functions."""

from __future__ import annotations

import math
import random

import numpy as np
import numpy.typing as npt

from training.scenes import PICTURE_SIZE, Colour, Place, Scene, Shape, Size, Thing

Array = npt.NDArray[np.float32]

PALETTE: dict[Colour, tuple[float, float, float]] = {
    Colour.RED: (0.86, 0.13, 0.15),
    Colour.ORANGE: (0.98, 0.56, 0.08),
    Colour.YELLOW: (0.98, 0.87, 0.20),
    Colour.GREEN: (0.15, 0.64, 0.28),
    Colour.BLUE: (0.14, 0.38, 0.86),
    Colour.PURPLE: (0.55, 0.22, 0.70),
    Colour.BLACK: (0.09, 0.09, 0.11),
    Colour.WHITE: (0.96, 0.96, 0.95),
}
"""Red, green and blue of every colour, 0 to 1."""

RADIUS = {Size.SMALL: 10.0, Size.MIDDLE: 15.0, Size.BIG: 23.0}
"""Half of a thing's extent by size, in pixels."""

_NEAR, _FAR = 17.5, PICTURE_SIZE - 17.5
_MIDDLE = PICTURE_SIZE / 2
CENTRES = {
    Place.CENTRE: (_MIDDLE, _MIDDLE),
    Place.TOP_LEFT: (_NEAR, _NEAR),
    Place.TOP_RIGHT: (_FAR, _NEAR),
    Place.BOTTOM_LEFT: (_NEAR, _FAR),
    Place.BOTTOM_RIGHT: (_FAR, _FAR),
    Place.LEFT: (_NEAR, _MIDDLE),
    Place.RIGHT: (_FAR, _MIDDLE),
}
"""x and y of every place, in pixels from the top left."""

JITTER = 1.25
"""How far a thing may sit from its place, in pixels."""


def _polygon(x: Array, y: Array, corners: list[tuple[float, float]]) -> Array:
    distance = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - ex * along, y - ay - ey * along))
        if ay != by:
            crossing = (ay > y) != (by > y)
            inside ^= crossing & (x < ax + ex * (y - ay) / ey)
    return np.where(inside, -distance, distance).astype(np.float32)


def _ring(points: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / points - math.pi / 2 for i in range(points)]
    return [
        (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a))
        for i, a in enumerate(angles)
    ]


def _heart() -> list[tuple[float, float]]:
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16, -(y + 2.5) / 16))
    return points


_ROUND = 0.97
_A, _B = 0.36, 1.0
_OUTLINES: dict[Shape, list[tuple[float, float]]] = {
    Shape.SQUARE: [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    Shape.TRIANGLE: [(0, -0.95), (1.0, 0.85), (-1.0, 0.85)],
    Shape.STAR: _ring(10, (1.08, 0.46)),
    Shape.CROSS: [
        *((-_A, -_B), (_A, -_B), (_A, -_A), (_B, -_A), (_B, _A), (_A, _A)),
        *((_A, _B), (-_A, _B), (-_A, _A), (-_B, _A), (-_B, -_A), (-_A, -_A)),
    ],
    Shape.HEART: _heart(),
}


def bounds(shape: Shape) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a shape around its place, in radii."""
    if shape is Shape.CIRCLE:
        return -_ROUND, -_ROUND, _ROUND, _ROUND
    across, down = zip(*_OUTLINES[shape], strict=True)
    return min(across), min(down), max(across), max(down)


def coverage(shape: Shape, x: float, y: float, radius: float) -> Array:
    """How much of each pixel a shape covers: (64, 64), 0 to 1, with a soft outline."""
    rows, columns = np.mgrid[0:PICTURE_SIZE, 0:PICTURE_SIZE].astype(np.float32) + 0.5
    across, down = (columns - x) / radius, (rows - y) / radius
    if shape is Shape.CIRCLE:
        distance = (np.hypot(across, down) - _ROUND).astype(np.float32)
    else:
        distance = _polygon(across, down, _OUTLINES[shape])
    covered: Array = np.clip(0.5 - distance * radius, 0, 1).astype(np.float32)
    return covered


def _background(colour: Colour, rng: random.Random) -> Array:
    """A plain background under a faint light that comes from a side drawn by lot."""
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.10)
    rows, columns = np.mgrid[-1 : 1 : PICTURE_SIZE * 1j, -1 : 1 : PICTURE_SIZE * 1j]
    light = 1 + strength * (math.cos(angle) * columns + math.sin(angle) * rows) / math.sqrt(2)
    return np.asarray(light[..., None] * np.asarray(PALETTE[colour]), dtype=np.float32)


def _draw_thing(picture: Array, thing: Thing, rng: random.Random) -> Array:
    x, y = (c + rng.uniform(-JITTER, JITTER) for c in CENTRES[thing.place])
    radius = RADIUS[thing.size] * rng.uniform(0.96, 1.04)
    if thing.place in (Place.LEFT, Place.RIGHT):
        radius *= 0.9
    covered = coverage(thing.shape, x, y, radius)[..., None]
    return picture * (1 - covered) + np.asarray(PALETTE[thing.colour], np.float32) * covered


def draw(scene: Scene, rng: random.Random) -> Array:
    """The picture of a scene: (64, 64, 3) float32, 0 to 1; `rng` moves it a little."""
    picture = _background(scene.background, rng)
    for thing in scene.things:
        picture = _draw_thing(picture, thing, rng)
    return np.clip(picture, 0, 1)
