"""The pictures that a run starts from, as a request brings them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence

import imagesize
from ditplan.v1 import generation_pb2

from planner.errors import Violation
from planner.models.facts import ModelFacts
from planner.settings import Limits

_FORMATS = "PNG, JPEG or WebP"
# What files of these formats begin with.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


def picture_faults(
    images: Sequence[generation_pb2.InputImage], limits: Limits
) -> Iterator[Violation]:
    """What is wrong with each picture, as far as can be told without decoding it."""
    total = sum(len(image.data) for image in images)
    if total > limits.picture_bytes:
        text = f"have {total} bytes together, more than {limits.picture_bytes}"
        yield Violation("spec.images", text)
        return
    for i, image in enumerate(images):
        field = f"spec.images[{i}]"
        size = picture_size(image) if image.data.startswith(_SIGNATURES) else None
        if size is None:
            yield Violation(f"{field}.data", f"is no picture; allowed: {_FORMATS}")
        elif size[0] * size[1] > limits.input_pixels:
            text = f"has {size[0]} x {size[1]} pixels, more than {limits.input_pixels}"
            yield Violation(f"{field}.data", text)
        if image.sha256 and image.sha256 != digest(image.data):
            yield Violation(f"{field}.sha256", "is not that of the data")


def picture_size(image: generation_pb2.InputImage) -> tuple[int, int] | None:
    """Width and height as it is shown; None where they cannot be read."""
    try:
        width, height = imagesize.get(io.BytesIO(image.data))
    except Exception:
        # Whatever the library stumbles over, the bytes are no picture.
        return None
    return (width, height) if width > 0 and height > 0 else None


def count_faults(count: int, model: ModelFacts) -> Iterator[Violation]:
    """Whether a model starts from so many pictures."""
    most = model.max_pictures
    if (count == 0) != (most == 0) or count > most:
        allowed = {0: "no pictures", 1: "one picture"}.get(most, f"1 to {most} pictures")
        text = f"this model takes {allowed}, {count} {'is' if count == 1 else 'are'} given"
        yield Violation("spec.images", text)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
