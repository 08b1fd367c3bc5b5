"""Results of runs: where they may go, how many there may be, how they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    Client,
    Executor,
    refused,
)
from tests.planner.service.planners import connected

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("file", ["", "..", "../../ditplan.sqlite3", "a/b", ".image.png.part"])
async def test_artifacts_cannot_be_read_or_written_elsewhere(settings: Settings, file: str) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        lease = await executor.leased()
        read = generation_pb2.ReadArtifactRequest(name=f"{created.name}/artifacts/{file}")
        assert (await refused(client.generations.ReadArtifact(read))).code == INVALID
        refusal = await refused(executor.upload(lease, file, b"data"))
        assert refusal.code == INVALID
        assert "header.name" in refusal.violations
    written = [p.name for p in settings.data.rglob("*") if p.is_file()]
    assert [name for name in written if not name.startswith("ditplan.")] == []


async def test_an_offset_beyond_the_end_is_out_of_range(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(queue=True)
        await executor.serve_one()
        for offset in (8, 2**64 - 1):
            request = generation_pb2.ReadArtifactRequest(
                name=f"{created.name}/artifacts/image.png", offset=offset
            )
            refusal = await refused(client.generations.ReadArtifact(request))
            assert refusal.code == grpc.StatusCode.OUT_OF_RANGE


async def test_a_run_leaves_a_bounded_number_of_artifacts(settings: Settings) -> None:
    settings = replace(settings, limits=replace(settings.limits, artifacts=2, artifact_bytes=10))
    async with connected(settings) as (client, executor):
        await client.create()
        lease = await executor.leased()
        for name in ("a.png", "b.png", "a.png"):
            await executor.upload(lease, name, b"x" * 10)
        for name, size in (("c.png", 1), ("a.png", 11)):
            refusal = await refused(executor.upload(lease, name, b"x" * size))
            assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_uploads_at_once_are_as_many_as_those_one_by_one(settings: Settings) -> None:
    settings = replace(settings, limits=replace(settings.limits, artifacts=2))
    async with connected(settings) as (client, executor):
        await client.create()
        lease = await executor.leased()
        calls = [executor.client.dispatch.UploadArtifact() for _ in range(6)]
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            for i, call in enumerate(calls):
                header = dispatch_pb2.ArtifactHeader(lease=lease, name=f"{i}.png")
                await call.write(dispatch_pb2.UploadArtifactRequest(header=header, data=b"x"))
        await asyncio.sleep(0.2)
        for call in calls:
            with suppress(asyncio.InvalidStateError):
                await call.done_writing()
        codes = [await call.code() for call in calls]
    assert codes == [grpc.StatusCode.OK] * 2 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4


async def test_uploads_out_of_order_or_bounds_are_refused(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        await client.create()
        header = dispatch_pb2.ArtifactHeader(lease=await executor.leased(), name="image.png")
        first = dispatch_pb2.UploadArtifactRequest(header=header)
        for messages in (
            [],
            [dispatch_pb2.UploadArtifactRequest(data=b"x")],
            [first, first],
            [first, dispatch_pb2.UploadArtifactRequest(data=b"x" * ((1 << 20) + 1))],
        ):

            async def requests(
                messages: list[dispatch_pb2.UploadArtifactRequest] = messages,
            ) -> AsyncIterator[dispatch_pb2.UploadArtifactRequest]:
                for message in messages:
                    yield message

            refusal = await refused(client.dispatch.UploadArtifact(requests()))
            assert refusal.code == INVALID
    files = [p for p in (settings.data / "artifacts").rglob("*") if p.is_file()]
    assert files == []
