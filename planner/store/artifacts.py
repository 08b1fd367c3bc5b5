"""The files of artifacts: written beside their final name, synced, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from planner.store.values import StorageFullError

# No space, no quota, no larger file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_artifact_name(name: str) -> bool:
    """Whether a name is a plain file name that no file system reads as anything else."""
    return _NAME.fullmatch(name) is not None


class ArtifactFiles:
    """``directory/generation/epoch/name``: no two attempts ever write to one file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, generation: str, epoch: int, name: str) -> Path:
        return self._directory / generation / str(epoch) / name

    def names(self, generation: str, epoch: int) -> set[str]:
        """The files that one attempt has left so far."""
        attempt = self._directory / generation / str(epoch)
        return {file.name for file in attempt.glob("[!.]*")}

    def write(self, generation: str, epoch: int, name: str) -> ArtifactWriter:
        return ArtifactWriter(self.path(generation, epoch, name))

    def generations(self) -> list[str]:
        """Those that have a directory."""
        return [each.name for each in self._directory.glob("*")]

    def forget(self, generation: str) -> None:
        """Removes every file of a generation; a reader that has one open reads it to its end."""
        shutil.rmtree(self._directory / generation, ignore_errors=True)

    def discard_others(self, generation: str, epoch: int | None, names: Iterable[str]) -> None:
        """Removes every file of a generation but these of this epoch."""
        kept = frozenset(names)
        for attempt in self._directory.glob(f"{generation}/*"):
            if attempt.name != str(epoch) or not kept:
                shutil.rmtree(attempt, ignore_errors=True)
                continue
            for file in attempt.iterdir():
                if file.name not in kept:
                    file.unlink(missing_ok=True)


class ArtifactWriter:
    """One file in the making. It exists under its name only after ``publish``.

    Each step raises StorageFullError where the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._digest = hashlib.sha256()
        self._file: FileIO | None = None
        self.size_bytes = 0

    def __enter__(self) -> Self:
        with _space_needed():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what could not be written must not be tried again when it is closed.
            self._file = self._part.open("xb", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._part.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        assert self._file is not None
        left = memoryview(data)
        with _space_needed():
            while left:
                left = left[self._file.write(left) :]
        self._digest.update(data)
        self.size_bytes += len(data)

    def publish(self) -> str:
        """Makes the file durable under its name; returns its SHA-256 in hex."""
        assert self._file is not None
        with _space_needed():
            os.fsync(self._file.fileno())
            self._part.replace(self._path)
            # Each may be new itself: epoch, generation, and the directory of all artifacts.
            for parent in self._path.parents[:3]:
                _sync_directory(parent)
        return self._digest.hexdigest()


@contextmanager
def _space_needed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(error.strerror) from error
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
