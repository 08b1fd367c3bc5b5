"""What the reader's terminal can show: its width, its colours, its characters."""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Any

import click

from planner.compile.plan import OpKind

MIN_WIDTH = 40
NO_BREAK_SPACE = "\xa0"
# No text that was shown holds this one, which is no character.
_SECOND_HALF = "\uffff"

_GLYPHS = {OpKind.FULL: "█", OpKind.ADAPTIVE: "▒", OpKind.CACHED: "·"}
_ASCII_GLYPHS = {OpKind.FULL: "#", OpKind.ADAPTIVE: "?", OpKind.CACHED: "."}
_COLORS = {OpKind.FULL: "blue", OpKind.ADAPTIVE: "yellow", OpKind.CACHED: "green"}


@dataclass(frozen=True, slots=True)
class Canvas:
    """A surface of ``width`` columns, never narrower than ``MIN_WIDTH``."""

    width: int = 80
    color: bool = False
    ascii: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", max(self.width, MIN_WIDTH))

    def paint(self, text: str, color: str | None = None, *, bold: bool = False) -> str:
        return click.style(text, fg=color, bold=bold or None) if self.color else text

    def dim(self, text: str) -> str:
        return click.style(text, dim=True) if self.color else text

    def glyph(self, kind: OpKind) -> str:
        return (_ASCII_GLYPHS if self.ascii else _GLYPHS)[kind]

    def paint_kind(self, text: str, kind: OpKind) -> str:
        return self.paint(text, _COLORS[kind])

    def show(self, text: str) -> str:
        """Text from outside, with everything escaped that this surface could not show."""
        return "".join(map(self._show_character, text))

    def wrap(self, text: str, *, first: str = "", rest: str = "") -> list[str]:
        """Lines no wider than the surface; a longer word stays whole, so that it can be copied.

        No line ends at a no-break space, which is shown as any other.
        """
        lines = wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return [line.replace(NO_BREAK_SPACE, " ") for line in lines] or [first.rstrip()]

    def _show_character(self, character: str) -> str:
        if character.isprintable() and (character.isascii() or not self.ascii):
            return character
        return character.encode("unicode_escape").decode("ascii")


def wrap(text: str, width: int, **options: Any) -> list[str]:
    """``textwrap.wrap`` by terminal columns instead of characters."""
    if text.isascii():
        return textwrap.wrap(text, width, **options)
    # A wide character counts as two while the lines are broken.
    padded = "".join(c + _SECOND_HALF * (display_width(c) - 1) for c in text)
    return [line.replace(_SECOND_HALF, "") for line in textwrap.wrap(padded, width, **options)]


def display_width(text: str) -> int:
    """How many terminal columns a text without control characters takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
