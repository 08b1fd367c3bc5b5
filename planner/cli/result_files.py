"""The files that a command keeps results in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click
from ditplan.v1 import generation_pb2

from planner.cli.outcome import fail


def image_format(out: Path) -> generation_pb2.ImageFormat.ValueType:
    """The one that a file's name asks for; else the service's own."""
    if out.suffix.lower() == ".webp":
        return generation_pb2.IMAGE_FORMAT_WEBP
    return generation_pb2.IMAGE_FORMAT_UNSPECIFIED


def check_writable(file: Path) -> None:
    """Before the work is done, not after."""
    directory = file.absolute().parent
    if not directory.is_dir():
        raise click.UsageError(f"{file}: its directory does not exist")
    if not os.access(file if file.exists() else directory, os.W_OK):
        raise click.UsageError(f"{file}: cannot be written")


def keep(results: Mapping[Path, bytes]) -> None:
    """Writes every file that can be written; the command ends where one cannot."""
    faults = []
    for path, data in results.items():
        try:
            path.write_bytes(data)
        except OSError as error:
            faults.append(f"cannot write {path}: {error.strerror}")
    if faults:
        fail("\n".join(faults))
