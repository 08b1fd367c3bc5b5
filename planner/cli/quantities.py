"""Lengths of time and amounts of data as a person writes them on the command line."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def duration(text: str) -> float:
    """Seconds in ``90s``, ``30m``, ``12h`` or ``7d``; 0 needs no unit."""
    if text == "0":
        return 0.0
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no length of time; allowed: 0, or as 90s, 12h, 7d")
    return float(int(match[1]) * _SECONDS[match[2]])


def size(text: str) -> int:
    """Bytes in ``1048576``, ``500M`` or ``20G``: powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no amount of data; allowed: as 1048576, 500M, 20G")
    return int(match[1]) * _BYTES[match[2]]
