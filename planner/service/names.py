"""Resource names: ``generations/{id}`` and ``generations/{id}/artifacts/{file}``."""

from __future__ import annotations

import re
import secrets

import grpc

from planner.errors import CallRefused, ErrorReason, Violation, invalid
from planner.store.artifacts import is_artifact_name

_GENERATION = re.compile(r"generations/([0-9a-f]{16})")


def new_id() -> str:
    return secrets.token_hex(8)


def generation_id(name: str, field: str = "name") -> str:
    """The id in a generation's name; INVALID_ARGUMENT where it is no such name."""
    match = _GENERATION.fullmatch(name)
    if match is None:
        raise invalid([Violation(field, "is no name of the form generations/{id}")])
    return match[1]


def artifact_id(name: str) -> tuple[str, str]:
    """Generation id and file name in an artifact's name."""
    generation, _, file = name.partition("/artifacts/")
    match = _GENERATION.fullmatch(generation)
    if match is None or not is_artifact_name(file):
        raise invalid(
            [Violation("name", "is no name of the form generations/{id}/artifacts/{file}")]
        )
    return match[1], file


def unknown_generation(generation: str) -> CallRefused:
    return CallRefused(
        grpc.StatusCode.NOT_FOUND,
        ErrorReason.UNKNOWN_GENERATION,
        f"generations/{generation} is not known",
    )
