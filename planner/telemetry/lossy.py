"""A stream for logs, which are no reason to fail a call."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO


class LossyStream(io.TextIOBase):
    """Writes to a stream what that takes; what it does not take, on a full disk, is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()
