"""Which rank of which executor this process is, as its launcher says."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

# What a process of an executor ends with, beside 0.
FAILED = 1
MISUSE = 2

LAUNCHER_RUN = "TORCHELASTIC_RUN_ID"
PR_SET_PDEATHSIG = 1


class NoSeatError(ValueError):
    """The launcher's variables and the group size do not fit; the message says how."""


@dataclass(frozen=True, slots=True)
class Seat:
    """``rank`` of ``size`` in executor ``group`` of ``groups``; ``local_rank`` counts devices."""

    rank: int = 0
    size: int = 1
    group: int = 0
    groups: int = 1
    local_rank: int = 0

    @classmethod
    def of(cls, environ: Mapping[str, str], group_size: int | None) -> Seat:
        """What torchrun's variables say, its world split into executors of ``group_size`` ranks.

        Raises:
            NoSeatError: a variable is no number or missing, or the ranks do not divide.
        """
        world = _number(environ, "WORLD_SIZE", 1)
        rank = _number(environ, "RANK", None if world > 1 else 0)
        size = group_size or world
        if world < 1 or world % size:
            raise NoSeatError(f"{world} ranks do not divide into executors of {size}")
        if not 0 <= rank < world:
            raise NoSeatError(f"RANK is {rank}, of {world} ranks")
        return cls(
            rank=rank % size,
            size=size,
            group=rank // size,
            groups=world // size,
            local_rank=_number(environ, "LOCAL_RANK", rank),
        )

    @property
    def suffix(self) -> str:
        """Tells the executors of one launch apart."""
        return f"-{self.group}" if self.groups > 1 else ""


def end_with_launcher() -> None:
    """Has Linux end this process when torchrun dies without a word: nobody else would."""
    if LAUNCHER_RUN in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _number(environ: Mapping[str, str], name: str, default: int | None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise NoSeatError(f"{name} is {text!r}, not a number") from None
