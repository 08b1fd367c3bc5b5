"""Gives an artifact out in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
from ditplan.v1 import generation_pb2

from planner.errors import CallRefused, ErrorReason
from planner.store.values import StoredArtifact


async def read_artifact(
    request: generation_pb2.ReadArtifactRequest,
    stored: StoredArtifact | None,
    path: Path | None,
    chunk_bytes: int,
) -> AsyncGenerator[generation_pb2.ReadArtifactResponse, None]:
    """The bytes from the offset on; at least one message, the first with the metadata."""
    if stored is None or path is None:
        raise unknown_artifact(request.name)
    artifact = stored.artifact
    if request.offset > artifact.size_bytes:
        raise CallRefused(
            grpc.StatusCode.OUT_OF_RANGE,
            ErrorReason.OFFSET_OUT_OF_RANGE,
            f"offset {request.offset} is beyond the {artifact.size_bytes} bytes of the artifact",
        )
    # Held open to the end: a file that is forgotten meanwhile is still read whole.
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise unknown_artifact(request.name) from None
    with file:
        file.seek(request.offset)
        data = await asyncio.to_thread(file.read, chunk_bytes)
        yield generation_pb2.ReadArtifactResponse(data=data, artifact=artifact)
        while data := await asyncio.to_thread(file.read, chunk_bytes):
            yield generation_pb2.ReadArtifactResponse(data=data)


def unknown_artifact(name: str) -> CallRefused:
    return CallRefused(
        grpc.StatusCode.NOT_FOUND,
        ErrorReason.UNKNOWN_ARTIFACT,
        f"{name} is not known; artifacts exist once their generation SUCCEEDED",
    )
