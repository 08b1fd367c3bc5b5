"""What is wrong with a model that cannot be loaded, or held, as asked."""

from __future__ import annotations


class PlacementError(Exception):
    """The pipeline cannot be loaded as asked; the message says what to change, in one line."""


def one_line(error: BaseException) -> str:
    """What a library says, without what it says below."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
