"""Small files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from executor.errors import PlacementError

# How a file begins that git has left out.
POINTER = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> Any:
    """Raises PlacementError where there is no such file or no JSON in it."""
    text = read_text(path)
    refuse_pointer(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlacementError(f"{path}: no valid JSON: {error}") from None


def read_text(path: Path) -> str:
    """Raises PlacementError where there is no such file or no text in it."""
    if not path.is_file():
        raise PlacementError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlacementError(f"{path}: cannot be read: {error}") from None


def refuse_pointer(path: Path) -> None:
    """Raises PlacementError where git has left a pointer in the place of a large file."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise PlacementError(f"{path}: cannot be read: {error}") from None
    if start == POINTER:
        raise PlacementError(f"{path}: a pointer of Git LFS and not the file; run git lfs pull")
