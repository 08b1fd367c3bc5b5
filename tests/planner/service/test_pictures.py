"""Requests with pictures, films and negative prompts."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from ditplan.v1 import executor_pb2, generation_pb2
from PIL import Image

from planner.models.catalog import NAMED
from planner.service.server import Planner, Settings
from planner.settings import Limits
from tests.planner.service.peers import (
    MODEL,
    Client,
    Executor,
    create_request,
    refused,
)

EDIT = "Qwen/Qwen-Image-Edit"
PLUS = "Qwen/Qwen-Image-Edit-2509"
FILM = "Wan-AI/Wan2.1-T2V-14B-Diffusers"


def _data(width: int = 64, height: int = 32, file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, file_format)
    return file.getvalue()


def _image(data: bytes | None = None, sha256: str = "") -> generation_pb2.InputImage:
    return generation_pb2.InputImage(data=_data() if data is None else data, sha256=sha256)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
async def test_a_picture_is_shown_by_its_checksum_alone(
    settings: Settings, file_format: str
) -> None:
    data = _data(file_format=file_format)
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = await client.create(model=EDIT, images=[_image(data)], queue=True)
        [image] = created.spec.images
        assert (image.data, image.sha256) == (b"", hashlib.sha256(data).hexdigest())
        assert (await client.get(created.name)).spec.images == created.spec.images


async def test_the_executor_gets_the_picture_and_then_it_is_forgotten(settings: Settings) -> None:
    configs = [
        executor_pb2.ComponentConfig(path=path, json=json.dumps(config))
        for path, config in NAMED[EDIT].items()
    ]
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, model=EDIT, component_configs=configs) as one,
    ):
        created = await client.create(model=EDIT, images=[_image()], queue=True)
        run = await one.start()
        assert run.assignment.spec.images[0].data == _data()
        assert run.assignment.spec.width == 1440
        await client.generations.CancelGeneration(
            generation_pb2.CancelGenerationRequest(name=created.name)
        )
        await client.ended(created.name)
    with sqlite3.connect(settings.data / "ditplan.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM images").fetchone() == (0,)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"model": EDIT}, "spec.images", "takes one picture, 0 are given"),
        ({"model": EDIT, "images": [_image()] * 2}, "spec.images", "one picture, 2 are given"),
        ({"model": PLUS, "images": [_image()] * 4}, "spec.images", "1 to 3 pictures, 4 are given"),
        ({"images": [_image()]}, "spec.images", "takes no pictures, 1 is given"),
        ({"model": EDIT, "images": [_image(b"")]}, "spec.images[0].data", "PNG, JPEG or WebP"),
        ({"model": EDIT, "images": [_image(b"<svg/>")]}, "spec.images[0].data", "no picture"),
        ({"model": EDIT, "images": [_image(_data()[:12])]}, "spec.images[0].data", "no picture"),
        (
            {"model": EDIT, "images": [_image(_data(file_format="GIF"))]},
            "spec.images[0].data",
            "no picture",
        ),
        ({"model": EDIT, "images": [_image(sha256="00")]}, "spec.images[0].sha256", "not that of"),
        ({"fps": 0}, "spec.fps", "1 to 120"),
        ({"fps": 8}, "spec.fps", "makes pictures"),
        ({"num_frames": 5}, "num_frames", "makes pictures"),
        ({"model": FILM, "num_frames": 6}, "num_frames", "multiple of 4"),
        ({"negative_prompt": "x" * (17 << 10)}, "spec.negative_prompt", "longer"),
    ],
)
async def test_refusals(settings: Settings, changes: dict[str, Any], field: str, says: str) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(
            client.generations.CreateGeneration(create_request(queue=True, **changes))
        )
    assert list(refusal.violations) == [field]
    assert says in refusal.violations[field]


@pytest.mark.parametrize(
    ("limits", "field", "says"),
    [
        (Limits(picture_bytes=10), "spec.images", "bytes together, more than 10"),
        (Limits(input_pixels=64 * 32 - 1), "spec.images[0].data", "more than 2047"),
    ],
)
async def test_large_pictures_are_refused(
    settings: Settings, limits: Limits, field: str, says: str
) -> None:
    settings = replace(settings, limits=limits)
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = create_request(model=EDIT, images=[_image()], queue=True)
        refusal = await refused(client.generations.CreateGeneration(request))
    assert list(refusal.violations) == [field]
    assert says in refusal.violations[field]


async def test_a_film_is_bounded_by_the_pixels_of_all_its_frames(settings: Settings) -> None:
    settings = replace(settings, limits=Limits(film_pixels=480 * 832 * 80))
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(
            client.generations.CreateGeneration(create_request(model=FILM, queue=True))
        )
        assert set(refusal.violations) == {"num_frames", "height", "width"}
        created = await client.create(model=FILM, num_frames=77, queue=True)
        assert created.spec.num_frames == 77


async def test_a_negative_prompt_makes_a_second_branch(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        one = await client.create(model="Qwen/Qwen-Image", queue=True)
        two = await client.create(model="Qwen/Qwen-Image", negative_prompt="", queue=True)
        assert [len(g.plan.program.columns) for g in (one, two)] == [1, 2]
        response = await client.generations.CreateGeneration(
            create_request(model=MODEL, negative_prompt="blue", queue=True)
        )
    assert [d.code for d in response.diagnostics] == ["negative-prompt-without-effect"]
