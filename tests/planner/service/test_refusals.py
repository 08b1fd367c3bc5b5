"""What is refused, and that the refusal says what to do."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2, planner_pb2

from planner.models.catalog import NAMED
from planner.service.server import Planner, Settings
from planner.settings import Limits
from tests.planner.service.peers import (
    MODEL,
    Client,
    Executor,
    asking,
    create_request,
    refused,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def test_every_fault_of_a_config_comes_in_one_refusal(settings: Settings) -> None:
    config = "cache_config:\n  max_warmup_step: 2\n  residual_diff_threshold: high\n"
    async with Planner(settings) as planner, Client(planner.address) as client:
        for call in (
            client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=MODEL, config=config)),
            client.generations.CreateGeneration(create_request(config=config, queue=True)),
        ):
            refusal = await refused(call)
            assert refusal.code == INVALID
            assert [(i.reason, i.domain) for i in refusal.infos] == [("INVALID_CONFIG", "ditplan")]
            first = refusal.violations["cache_config.max_warmup_step"]
            assert "line 2" in first
            assert "max_warmup_steps" in first
            assert "line 3" in refusal.violations["cache_config.residual_diff_threshold"]
            assert [(d.field, d.line, d.column) for d in refusal.diagnostics[:2]] == [
                ("cache_config.max_warmup_step", 2, 3),
                ("cache_config.residual_diff_threshold", 3, 28),
            ]
            assert "max_warmup_steps" in refusal.diagnostics[0].hint


async def test_more_faults_than_trailers_hold_are_counted(settings: Settings) -> None:
    config = "".join(f"unknown_{i}_{'x' * 110}: 1\n" for i in range(20))
    request = planner_pb2.CompilePlanRequest(model=MODEL, config=config)
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(client.planner.CompilePlan(request))
    assert refusal.code == INVALID
    assert "more faults" in refusal.violations[""]


async def test_every_fault_of_a_request_comes_in_one_refusal(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = create_request("bad\nid", model="", prompt=" ")
        refusal = await refused(client.generations.CreateGeneration(request))
        assert refusal.code == INVALID
        assert set(refusal.violations) == {"request_id", "spec.model", "spec.prompt"}
        long = create_request(prompt="x" * (16 << 10) + "x")
        refusal = await refused(client.generations.CreateGeneration(long))
        assert set(refusal.violations) == {"spec.prompt"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"height": 17}, "height"),
        ({"width": 0}, "width"),
        ({"width": 2**32 - 16}, "width"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 2**32 - 1}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": float("-inf")}, "guidance_scale"),
    ],
)
async def test_numbers_out_of_range_are_refused(
    settings: Settings, changes: dict[str, Any], field: str
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = create_request(queue=True, **changes)
        refusal = await refused(client.generations.CreateGeneration(request))
    assert refusal.code == INVALID
    assert field in refusal.violations


async def test_a_size_that_is_not_allowed_comes_with_its_neighbours(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        for call in (
            client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=MODEL, width=1010)),
            client.generations.CreateGeneration(create_request(queue=True, width=1010)),
        ):
            refusal = await refused(call)
            assert refusal.code == INVALID
            assert "(nearest: 1008 or 1024)" in refusal.violations["width"]
            assert refusal.diagnostics[0].hint == "nearest: 1008 or 1024"


async def test_a_picture_with_too_many_pixels_is_refused(settings: Settings) -> None:
    few = replace(settings, limits=Limits(pixels=1024 * 512))
    async with Planner(few) as planner, Client(planner.address) as client:
        await client.create(queue=True, height=512, width=1024)
        for changes in ({"height": 528, "width": 1024}, {}):
            refusal = await refused(
                client.generations.CreateGeneration(create_request(queue=True, **changes))
            )
            assert refusal.code == INVALID
            assert set(refusal.violations) == {"height", "width"}
            assert "524288" in refusal.violations["height"]
    assert "1024 x 1024 are 1048576 pixels" in refusal.message
    async with Planner(settings) as planner, Client(planner.address) as client:
        huge = create_request(queue=True, height=16384, width=16384)
        assert (await refused(client.generations.CreateGeneration(huge))).code == INVALID


async def test_a_program_that_does_not_hold_together_is_refused(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        good = (await client.create(queue=True)).plan.program
        for damage in ("op", "column", "steps", "model", "huge"):
            program = type(good)()
            program.CopyFrom(good)
            if damage == "op":
                program.steps[0].ops[0] = 2**32 - 1
            elif damage == "column":
                del program.columns[:]
            elif damage == "steps":
                program.num_inference_steps = 2**32 - 1
            elif damage == "model":
                program.model.family = "other"
            else:
                program.attention_backend = "x" * (1 << 20)
            request = create_request(queue=True, program=program, num_inference_steps=None)
            refusal = await refused(client.generations.CreateGeneration(request))
            assert (damage, refusal.code) == (damage, INVALID)
            assert set(refusal.violations) == {"spec.program"}


async def test_without_a_matching_executor_the_refusal_says_what_differs(
    settings: Settings,
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(client.generations.CreateGeneration(create_request()))
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
        assert [info.reason for info in refusal.infos] == ["NO_MATCHING_EXECUTOR"]
        assert "no executor is connected" in refusal.message
        async with (
            Executor(planner.address, "small-one", model="small") as small,
            asking(small),
        ):
            refusal = await refused(client.generations.CreateGeneration(create_request()))
            assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
            assert "not served by any of 1 connected executor" in refusal.message
            assert "small-one has model 'small'" in refusal.message
        async with (
            Executor(planner.address, "wide", world_size=2) as wide,
            Executor(planner.address, "float8") as quantized,
        ):
            quantized.message.placement.quant_type = "float8"
            async with asking(wide, quantized):
                refusal = await refused(client.generations.CreateGeneration(create_request()))
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
        assert "the plan wants world size 1, wide has world size 2" in refusal.message
        assert "the plan wants no quantization, float8 holds float8" in refusal.message


async def test_an_open_world_size_becomes_that_of_the_widest_executor(settings: Settings) -> None:
    config = "parallelism_config:\n  ulysses_size: auto\n"
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "pair", world_size=2) as pair,
        Executor(planner.address, "four", world_size=4) as four,
        asking(four, pair) as [acquiring, _],
    ):
        created = await client.create(config=config)
        assert created.plan.program.topology.ulysses_size == 4
        assert (await acquiring).generation == created.name


async def test_validating_only_makes_nothing(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = create_request("mine", queue=True, validate_only=True)
        answer = await client.generations.CreateGeneration(request)
        assert answer.generation.plan.plan_id
        assert answer.generation.name == ""
        listed = await client.generations.ListGenerations(generation_pb2.ListGenerationsRequest())
        assert not listed.generations


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A model root with one checkpoint, beside a checkpoint that is not below it."""
    for name in ("root/flux", "outside"):
        for path, config in NAMED[MODEL].items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(config))
    (tmp_path / "root" / "escape").symlink_to(tmp_path / "outside")
    return tmp_path


async def test_directories_are_read_only_below_the_model_roots(
    settings: Settings, checkpoints: Path
) -> None:
    settings = Settings(
        data=settings.data, listen=settings.listen, model_roots=(checkpoints / "root",)
    )
    inside = str(checkpoints / "root" / "flux")
    async with Planner(settings) as planner, Client(planner.address) as client:
        found = await client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=inside))
        named = await client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=MODEL))
        assert found.plan.plan_id == named.plan.plan_id
        for path in (
            checkpoints / "outside",
            checkpoints / "root" / ".." / "outside",
            checkpoints / "root" / "escape",
            checkpoints / "root" / "nothing",
            Path("/"),
            Path("../../../../etc"),
        ):
            request = planner_pb2.CompilePlanRequest(model=str(path))
            refusal = await refused(client.planner.CompilePlan(request))
            assert refusal.code == INVALID
            assert set(refusal.violations) == {"model"}
            assert "model_index" not in refusal.message, "it does not tell what is on the disk"


async def test_a_directory_matches_however_it_is_written(
    settings: Settings, checkpoints: Path
) -> None:
    settings = Settings(
        data=settings.data, listen=settings.listen, model_roots=(checkpoints / "root",)
    )
    served = str(checkpoints / "root" / "flux")
    asked = str(checkpoints / "root" / "." / "flux") + "/"
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, model=served) as executor,
        asking(executor) as [acquiring],
    ):
        created = await client.create(model=asked)
        assert (await acquiring).generation == created.name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "generations/",
        "generations/../../etc/passwd",
        "generations/0123456789ABCDEF",
        "generations/0123456789abcdef\n",
        "generations/0123456789abcdef/artifacts/x.png",
    ],
)
async def test_names_that_are_none_are_refused(settings: Settings, name: str) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        for call in (
            client.generations.GetGeneration(generation_pb2.GetGenerationRequest(name=name)),
            client.generations.CancelGeneration(generation_pb2.CancelGenerationRequest(name=name)),
            client.generations.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name)),
        ):
            assert (await refused(call)).code == INVALID


async def test_unknown_things_are_not_found(settings: Settings) -> None:
    name = "generations/0123456789abcdef"
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor),
    ):
        created = await client.create()
        for call in (
            client.generations.GetGeneration(generation_pb2.GetGenerationRequest(name=name)),
            client.generations.CancelGeneration(generation_pb2.CancelGenerationRequest(name=name)),
            client.generations.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name)),
            client.generations.ReadArtifact(
                generation_pb2.ReadArtifactRequest(name=f"{created.name}/artifacts/image.png")
            ),
        ):
            refusal = await refused(call)
            assert refusal.code == grpc.StatusCode.NOT_FOUND
            assert len(refusal.infos) == 1


async def test_pages_go_from_the_newest_to_the_oldest(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = [(await client.create(queue=True)).name for _ in range(5)]
        listed: list[str] = []
        token = ""
        for _ in range(3):
            page = await client.generations.ListGenerations(
                generation_pb2.ListGenerationsRequest(page_size=2, page_token=token)
            )
            listed += [generation.name for generation in page.generations]
            token = page.next_page_token
        assert listed == created[::-1]
        assert token == ""
        for bad in ("0", "-1", "x", "1" * 19, "١", " 1", "1\n", "1", f"0-{'0' * 16}"):
            request = generation_pb2.ListGenerationsRequest(page_token=bad)
            refusal = await refused(client.generations.ListGenerations(request))
            assert refusal.code == INVALID
            assert "page_token" in refusal.violations


async def test_maxima_of_an_operator_are_named_with_their_fields(settings: Settings) -> None:
    limits = Limits(steps=5, frames=9)
    async with (
        Planner(replace(settings, limits=limits)) as planner,
        Client(planner.address) as client,
    ):
        film = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
        for call, field, text in (
            (
                client.generations.CreateGeneration(create_request(queue=True)),
                "num_inference_steps",
                "6 is more than the 5",
            ),
            (
                client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=MODEL)),
                "num_inference_steps",
                "28 is more than the 5",
            ),
            (
                client.generations.CreateGeneration(
                    create_request(queue=True, model=film, num_inference_steps=5, num_frames=13)
                ),
                "num_frames",
                "13 is more than the 9",
            ),
        ):
            refusal = await refused(call)
            assert refusal.code == INVALID
            assert len(refusal.infos) == 1
            assert text in refusal.violations[field]


async def test_a_database_that_another_process_holds_is_a_matter_of_time(
    settings: Settings,
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        with closing(sqlite3.connect(settings.data / "ditplan.sqlite3")) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            refusal = await refused(
                client.generations.CreateGeneration(create_request("mine", queue=True))
            )
            assert time.monotonic() - began < 2
        assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [info.reason for info in refusal.infos] == ["STORAGE_FULL"]
        assert refusal.retry_seconds
        await client.generations.CreateGeneration(create_request("mine", queue=True))
