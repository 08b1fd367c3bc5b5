"""What a run leaves behind, as files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

from ditplan.dispatch.v1.dispatch_pb2 import ArtifactHeader, Lease, UploadArtifactRequest
from ditplan.v1 import generation_pb2
from PIL.Image import Image
from safetensors.torch import save

from executor.agent.film import encode_mp4
from executor.engine.run import RunResult

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    name: str
    media_type: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def encode(
    result: RunResult,
    *,
    save_latents: bool,
    image_format: int = generation_pb2.IMAGE_FORMAT_UNSPECIFIED,
) -> list[ArtifactFile]:
    """The picture or the film as MP4, and, if asked for, the latents as safetensors.

    A picture is kept without loss: as WebP where ``image_format`` says so, else as PNG. The key of
    the latents is "latents".
    """
    if result.fps is None:
        webp = image_format == generation_pb2.IMAGE_FORMAT_WEBP
        files = [_webp(result.frames[0]) if webp else _png(result.frames[0])]
    else:
        film = encode_mp4(result.frames, result.fps)
        files = [ArtifactFile("video.mp4", "video/mp4", film)]
    if save_latents:
        latents = save({"latents": result.latents.contiguous()})
        files.append(ArtifactFile("latents.safetensors", "application/octet-stream", latents))
    return files


def _png(picture: Image) -> ArtifactFile:
    file = io.BytesIO()
    # A picture of a model hardly packs better for several times the time.
    picture.save(file, format="PNG", compress_level=1)
    return ArtifactFile("image.png", "image/png", file.getvalue())


def _webp(picture: Image) -> ArtifactFile:
    file = io.BytesIO()
    # Exact: what is transparent keeps its colour too.
    picture.save(file, format="WEBP", lossless=True, exact=True)
    return ArtifactFile("image.webp", "image/webp", file.getvalue())


def upload_requests(lease: Lease, file: ArtifactFile) -> Iterator[UploadArtifactRequest]:
    """The messages of one upload, each with at most 1 MiB of data."""
    header = ArtifactHeader(lease=lease, name=file.name, media_type=file.media_type)
    yield UploadArtifactRequest(header=header, data=file.data[:CHUNK_BYTES])
    for start in range(CHUNK_BYTES, len(file.data), CHUNK_BYTES):
        yield UploadArtifactRequest(data=file.data[start : start + CHUNK_BYTES])
