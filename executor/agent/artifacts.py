"""What a run leaves behind, as files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from ditplan.dispatch.v1.dispatch_pb2 import ArtifactHeader, Lease, UploadArtifactRequest
from safetensors.torch import save

from executor.agent.film import encode_mp4
from executor.engine.run import RunResult

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    name: str
    media_type: str
    data: bytes


def encode(result: RunResult, *, save_latents: bool) -> list[ArtifactFile]:
    """The picture as PNG or the film as MP4, and, if asked for, the latents as safetensors.

    Their key there is "latents".
    """
    if result.fps is None:
        png = io.BytesIO()
        result.frames[0].save(png, format="PNG")
        files = [ArtifactFile("image.png", "image/png", png.getvalue())]
    else:
        film = encode_mp4(result.frames, result.fps)
        files = [ArtifactFile("video.mp4", "video/mp4", film)]
    if save_latents:
        latents = save({"latents": result.latents.contiguous()})
        files.append(ArtifactFile("latents.safetensors", "application/octet-stream", latents))
    return files


def upload_requests(lease: Lease, file: ArtifactFile) -> Iterator[UploadArtifactRequest]:
    """The messages of one upload, each with at most 1 MiB of data."""
    header = ArtifactHeader(lease=lease, name=file.name, media_type=file.media_type)
    yield UploadArtifactRequest(header=header, data=file.data[:CHUNK_BYTES])
    for start in range(CHUNK_BYTES, len(file.data), CHUNK_BYTES):
        yield UploadArtifactRequest(data=file.data[start : start + CHUNK_BYTES])
