"""What has ended is kept for a while, then forgotten for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    ADAPTIVE_CONFIG,
    Client,
    Executor,
    create_request,
    refused,
)

SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED
MIB = 1 << 20


@pytest.fixture
def keeping(settings: Settings) -> Callable[..., Settings]:
    """Settings that look often, with other times and limits."""

    def make(data_bytes: int = 0, free_bytes: int = 0, **timing: Any) -> Settings:
        return replace(
            settings,
            timing=replace(settings.timing, retention_interval=0.05, **timing),
            limits=replace(settings.limits, data_bytes=data_bytes, free_bytes=free_bytes),
        )

    return make


async def made(client: Client, executor: Executor, picture: bytes = b"picture") -> str:
    """The name of a generation that SUCCEEDED."""
    created = await client.create(queue=True, config=ADAPTIVE_CONFIG)
    run = await executor.start()
    await run.report(0, len(run.steps))
    await executor.upload(run.lease, "image.png", picture)
    await run.complete()
    return created.name


async def is_known(client: Client, name: str) -> bool:
    try:
        await client.get(name)
    except grpc.aio.AioRpcError as error:
        return error.code() != grpc.StatusCode.NOT_FOUND
    return True


async def forgotten(client: Client, name: str) -> None:
    while await is_known(client, name):
        await asyncio.sleep(0.02)


async def test_what_has_ended_is_forgotten_in_time_and_the_rest_is_not(
    keeping: Callable[..., Settings],
) -> None:
    settings = keeping(retain=0.5)
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        Executor(planner.address, "exec-2") as other,
    ):
        name = await made(client, executor)
        ended = await client.get(name)
        kept = ended.expire_time.ToNanoseconds() - ended.end_time.ToNanoseconds()
        assert kept == pytest.approx(0.5e9, abs=1e4)
        await client.create(queue=True)
        run = await other.start()
        queued = await client.create(queue=True)
        assert not queued.HasField("expire_time")
        await forgotten(client, name)
        artifact = generation_pb2.ReadArtifactRequest(name=f"{name}/artifacts/image.png")
        watch = generation_pb2.WatchGenerationRequest(name=name)
        for call in (
            client.generations.ReadArtifact(artifact),
            client.generations.WatchGeneration(watch),
        ):
            assert (await refused(call)).code == grpc.StatusCode.NOT_FOUND
        await asyncio.sleep(0.6)
        assert await is_known(client, run.lease.generation)
        assert await is_known(client, queued.name)
        assert [*(settings.data / "artifacts").iterdir()] == []


async def test_nothing_is_forgotten_where_no_time_is_set(keeping: Callable[..., Settings]) -> None:
    async with (
        Planner(keeping(retain=0.0)) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        name = await made(client, executor)
        await asyncio.sleep(0.3)
        assert not (await client.get(name)).HasField("expire_time")


async def test_the_oldest_makes_room_for_the_newest(keeping: Callable[..., Settings]) -> None:
    settings = keeping(data_bytes=4 * MIB)
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        names = [await made(client, executor, bytes(3 * MIB // 2)) for _ in range(4)]
        await forgotten(client, names[1])
        assert [await is_known(client, name) for name in names] == [False, False, True, True]
        expected = {name.removeprefix("generations/") for name in names[2:]}
        # Files go behind what is known of them.
        while {each.name for each in (settings.data / "artifacts").iterdir()} != expected:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("bound", [{"data_bytes": 1}, {"free_bytes": 1 << 60}])
async def test_without_room_new_work_is_refused_and_told_when_to_come_again(
    settings: Settings, keeping: Callable[..., Settings], bound: dict[str, int]
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        queued = await client.create(queue=True)
    async with (
        Planner(keeping(**bound)) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        await asyncio.sleep(0.1)
        refusal = await refused(client.generations.CreateGeneration(create_request(queue=True)))
        assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [info.reason for info in refusal.infos] == ["STORAGE_FULL"]
        assert refusal.retry_seconds
        watching = asyncio.create_task(client.ended(queued.name))
        await executor.serve_one()
        assert (await watching).state == SUCCEEDED, "what was accepted goes on"


async def test_a_file_that_is_being_read_is_read_whole(keeping: Callable[..., Settings]) -> None:
    picture = bytes(range(256)) * (8 * MIB // 256)
    async with (
        Planner(keeping(retain=0.3)) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        name = await made(client, executor, picture)
        request = generation_pb2.ReadArtifactRequest(name=f"{name}/artifacts/image.png")
        call = client.generations.ReadArtifact(request)
        read = bytearray((await call.read()).data)
        await forgotten(client, name)
        while response := await call.read():
            read += response.data
    assert read == picture


async def test_of_old_events_the_first_and_the_last_are_kept(
    keeping: Callable[..., Settings],
) -> None:
    async with (
        Planner(keeping(keep_events=0.0)) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(request_id="mine", queue=True, config=ADAPTIVE_CONFIG)
        request = create_request("mine", queue=True, config=ADAPTIVE_CONFIG)
        first = await client.generations.CreateGeneration(request)
        await executor.serve_one()
        while len(events := await client.watch(created.name)) > 2:
            await asyncio.sleep(0.02)
        assert [event.sequence for event in events] == [1, 10]
        assert len(events[-1].finished.record.steps) == 6
        assert [e.sequence for e in await client.watch(created.name, after=4)] == [10]
        assert await client.watch(created.name, after=10) == []
        again = await client.generations.CreateGeneration(request)
        assert again.diagnostics == first.diagnostics
        assert again.generation.record == events[-1].finished.record


async def test_files_of_what_is_not_known_are_removed(keeping: Callable[..., Settings]) -> None:
    settings = keeping()
    stray = settings.data / "artifacts" / "0123456789abcdef" / "1" / "image.png"
    stray.parent.mkdir(parents=True)
    stray.touch()
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        name = await made(client, executor)
    async with Planner(settings) as planner, Client(planner.address) as client:
        assert await is_known(client, name)
        kept = [path.name for path in (settings.data / "artifacts").iterdir()]
    assert kept == [name.removeprefix("generations/")]
