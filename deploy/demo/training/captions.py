"""Reads captions back into the scenes they ask for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from training.scenes import CORNERS, PAIR, Colour, Place, Scene, Shape, Size, Thing

_Word = TypeVar("_Word", bound=StrEnum)


def scene_of(caption: str) -> Scene:
    """The scene a caption asks for; ValueError where it is not a caption of this world."""
    try:
        things, background = caption.lower().strip(" .").rsplit(" on ", 1)
        places = [*PAIR] if " and " in things else [_place_in(things)]
        phrases = zip(things.split(" and "), places, strict=True)
        return Scene(
            _only(Colour, background.split()),
            tuple(_thing(phrase.split(), place) for phrase, place in phrases),
        )
    except ValueError as error:
        example = "a small red star at the top left on a blue background"
        message = f'cannot read the caption "{caption}"; one that works is "{example}"'
        raise ValueError(message) from error


def _thing(words: list[str], place: Place) -> Thing:
    sizes = [size for size in (Size.SMALL, Size.BIG) if size in words]
    return Thing(_only(Shape, words), _only(Colour, words), (*sizes, Size.MIDDLE)[0], place)


def _place_in(text: str) -> Place:
    return next((place for place in CORNERS if place in text), Place.CENTRE)


def _only(kind: Iterable[_Word], words: list[str]) -> _Word:
    """The one word of a kind among `words`."""
    (found,) = (word for word in kind if word in words)
    return found
