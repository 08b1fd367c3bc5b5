"""Files of certificates and secrets, which others replace while a process runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

Stamp = tuple[tuple[int, ...], ...]


def stamp(*files: Path) -> Stamp:
    """Changes when one of the files does.

    Raises:
        OSError: one of them is not there.
    """
    found = [file.stat() for file in files]
    return tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in found)


def read_by_all(file: Path) -> bool:
    """Whether everyone on this machine can read the file."""
    try:
        return os.name == "posix" and bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
