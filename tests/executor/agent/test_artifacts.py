"""Results as files and as messages."""

from __future__ import annotations

import dataclasses
import io

import av
import pytest
import torch
from ditplan.dispatch.v1.dispatch_pb2 import Lease
from ditplan.v1 import generation_pb2
from PIL import Image
from safetensors.torch import load

from executor.agent.artifacts import CHUNK_BYTES, ArtifactFile, encode, upload_requests
from executor.engine.run import RunResult

LEASE = Lease(generation="generations/1", epoch=3)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_file_goes_up_in_chunks_behind_one_header(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    requests = list(upload_requests(LEASE, ArtifactFile("a.bin", "x/y", data)))
    assert b"".join(request.data for request in requests) == data
    assert all(len(request.data) <= CHUNK_BYTES for request in requests)
    assert [request.HasField("header") for request in requests] == [True] + [False] * (
        len(requests) - 1
    )
    header = requests[0].header
    assert (header.lease, header.name, header.media_type) == (LEASE, "a.bin", "x/y")


def _result(*colours: tuple[int, int, int], size: tuple[int, int] = (32, 16)) -> RunResult:
    frames = tuple(Image.new("RGB", size, colour) for colour in colours)
    fps = None if len(frames) == 1 else 8
    return RunResult(frames, fps, torch.zeros(1, 2), (), 0.0, 0.0, (), {})


def test_a_picture_is_kept_as_png() -> None:
    [file] = encode(_result((255, 0, 0)), save_latents=False)
    assert (file.name, file.media_type) == ("image.png", "image/png")
    assert Image.open(io.BytesIO(file.data)).getpixel((5, 5)) == (255, 0, 0)


def test_a_picture_in_webp_has_every_bit() -> None:
    noise = torch.randint(0, 256, (16, 32, 3), generator=torch.Generator().manual_seed(0))
    picture = Image.frombytes("RGB", (32, 16), bytes(noise.flatten().tolist()))
    result = dataclasses.replace(_result((0, 0, 0)), frames=(picture,))
    webp = generation_pb2.IMAGE_FORMAT_WEBP
    first, again = (encode(result, save_latents=False, image_format=webp) for _ in "12")
    assert first == again
    [file] = first
    assert (file.name, file.media_type) == ("image.webp", "image/webp")
    assert Image.open(io.BytesIO(file.data)).convert("RGB").tobytes() == picture.tobytes()


@pytest.mark.parametrize("size", [(32, 16), (33, 17)])
def test_a_film_is_kept_as_mp4(size: tuple[int, int]) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    film, latents = encode(_result(*colours, size=size), save_latents=True)
    assert (film.name, film.media_type) == ("video.mp4", "video/mp4")
    assert load(latents.data)["latents"].shape == (1, 2)
    with av.open(io.BytesIO(film.data)) as container:
        assert container.streams.video[0].average_rate == 8
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert len(frames) == 3
    for frame, colour in zip(frames, colours, strict=True):
        assert frame.size == (32, 16)
        shown = frame.getpixel((5, 5))
        assert max(abs(a - b) for a, b in zip(shown, colour, strict=True)) < 12


def test_the_same_film_gives_the_same_bytes() -> None:
    first, again = (encode(_result((9, 9, 9), (200, 0, 0)), save_latents=False) for _ in "12")
    assert first == again
