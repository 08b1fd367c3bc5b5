"""What can be wrong with a placement."""

from __future__ import annotations


class PlacementError(Exception):
    """The pipeline cannot be loaded as asked; the message says what to change, in one line."""
