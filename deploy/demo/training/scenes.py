"""The world of the demo model: scenes of coloured shapes, and the captions that name them."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from enum import StrEnum

PICTURE_SIZE = 64
"""Height and width of every picture, in pixels."""


class Shape(StrEnum):
    """Outlines a thing can have."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"
    HEART = "heart"


class Colour(StrEnum):
    """Colours of things and of backgrounds."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    BLACK = "black"
    WHITE = "white"


class Size(StrEnum):
    """Sizes of things; a caption leaves the middle one out."""

    SMALL = "small"
    MIDDLE = ""
    BIG = "big"


class Place(StrEnum):
    """Where the middle of a thing is; LEFT and RIGHT are the places of a pair."""

    CENTRE = "centre"
    TOP_LEFT = "top left"
    TOP_RIGHT = "top right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM_RIGHT = "bottom right"
    LEFT = "left"
    RIGHT = "right"


CORNERS = (Place.TOP_LEFT, Place.TOP_RIGHT, Place.BOTTOM_LEFT, Place.BOTTOM_RIGHT)
PAIR = (Place.LEFT, Place.RIGHT)


@dataclass(frozen=True)
class Thing:
    """One coloured shape at one place."""

    shape: Shape
    colour: Colour
    size: Size
    place: Place

    @property
    def phrase(self) -> str:
        """The thing without its place, as in "a small red star"."""
        adjectives = f"{self.size} {self.colour}".strip()
        article = "an" if adjectives.startswith("orange") else "a"
        return f"{article} {adjectives} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One thing, or two beside each other, on a plain background."""

    background: Colour
    things: tuple[Thing, ...]

    @property
    def held_out(self) -> bool:
        """Whether training never sees this scene: one in twelve of all shape and colour pairs."""
        names = (f"{thing.shape}/{thing.colour}/{self.background}" for thing in self.things)
        return any(zlib.crc32(name.encode()) % 12 == 0 for name in names)

    def caption(self, rng: random.Random) -> str:
        """One of the ways to say this scene in words, at most 13 of them."""
        if len(self.things) == 2:
            left, right = self.things
            words = f"{left.phrase} and {right.phrase}"
        else:
            words = f"{self.things[0].phrase}{_where(self.things[0].place, rng)}"
        article = "an" if self.background is Colour.ORANGE else "a"
        words += rng.choice(
            (f" on {self.background}", f" on {article} {self.background} background")
        )
        return words if rng.random() < 0.8 else f"{words[0].upper()}{words[1:]}."


def _where(place: Place, rng: random.Random) -> str:
    if place is Place.CENTRE:
        return rng.choice(("", " in the centre", " in the center", " in the middle"))
    return f" {rng.choice(('at', 'in'))} the {place}"


def random_scene(rng: random.Random, pairs: float = 0.1) -> Scene:
    """Draws a scene by lot; `pairs` is the share of scenes with two things."""
    background = rng.choice(list(Colour))
    others = [colour for colour in Colour if colour is not background]
    if rng.random() < pairs:
        return Scene(background, tuple(_random_thing(rng, others, place) for place in PAIR))
    place = Place.CENTRE if rng.random() < 0.4 else rng.choice(CORNERS)
    return Scene(background, (_random_thing(rng, others, place),))


def _random_thing(rng: random.Random, colours: list[Colour], place: Place) -> Thing:
    sizes = {Place.CENTRE: list(Size), Place.LEFT: [Size.MIDDLE], Place.RIGHT: [Size.MIDDLE]}
    size = rng.choice(sizes.get(place, [Size.SMALL, Size.MIDDLE]))
    return Thing(rng.choice(list(Shape)), rng.choice(colours), size, place)


def training_scenes(count: int, seed: int) -> list[Scene]:
    """`count` scenes to learn from, none of them held out."""
    rng = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if not scene.held_out:
            scenes.append(scene)
    return scenes


def evaluation_prompts(count: int, seed: int = 2024, pairs: float = 0.0) -> list[str]:
    """`count` captions of scenes that training never saw, the same ones for the same seed."""
    rng = random.Random(seed)
    prompts: list[str] = []
    while len(prompts) < count:
        scene = random_scene(rng, pairs)
        if scene.held_out:
            prompts.append(scene.caption(rng))
    return prompts
