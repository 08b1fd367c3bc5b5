"""The directory in which one planner keeps everything that must outlive it."""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path

from planner.store.artifacts import ArtifactFiles
from planner.store.schema import StoreVersionError
from planner.store.sqlite import SqliteStore


class UnusableDirectoryError(Exception):
    """The directory cannot hold a planner's data; the message says why."""


class DataDirectory:
    """Held by one planner at a time: two would take each other's leases for lost ones."""

    def __init__(self, path: Path, retain_seconds: float = 0.0) -> None:
        """Raises UnusableDirectoryError."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            # The lock goes with the process, however it ends.
            self._lock = (path / "ditplan.lock").open("ab")
        except OSError as error:
            raise UnusableDirectoryError(f"{path}: {error.strerror or error}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.store = SqliteStore(path / "ditplan.sqlite3", retain_seconds=retain_seconds)
        except BlockingIOError:
            self._lock.close()
            raise UnusableDirectoryError(f"{path}: another planner uses it") from None
        except (OSError, sqlite3.Error, StoreVersionError) as error:
            self._lock.close()
            raise UnusableDirectoryError(f"{path}: {error}") from None
        self.path = path
        self.files = ArtifactFiles(path / "artifacts")

    def close(self) -> None:
        self.store.close()
        self._lock.close()
