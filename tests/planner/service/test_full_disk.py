"""A disk that takes nothing for a while: calls say so, and nothing is lost.

The planner is a process whose files may not grow, which its writes meet as they would a quota.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2

from tests.planner.service.peers import (
    Client,
    Executor,
    Refusal,
    Run,
    asking,
    create_request,
    refused,
    spec,
)

SERVE = """
import asyncio, pathlib, sys
from planner.service.server import Settings, serve
from planner.settings import Timing
timing = Timing(lease_ttl=1.0, attach_window=2.5, restart_window=2.5, broken_stream_grace=0.2,
                connected_grace=0.5, cancel_window=0.5, retention_interval=0.1)
settings = Settings(data=pathlib.Path(sys.argv[1]), listen="127.0.0.1:0", timing=timing)
asyncio.run(serve(settings, lambda address: print(address, flush=True)))
"""
CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED
SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED


class Disk:
    """What a process may write to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._free = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (0, self._free[1]))

    def clear(self) -> None:
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, self._free)


@contextmanager
def serving(data: Path) -> Iterator[tuple[Disk, str]]:
    # Its log meets the same disk.
    log = data / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(data)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield Disk(process), process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()


def assert_full(refusal: Refusal) -> None:
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED, refusal.message
    assert [info.reason for info in refusal.infos] == ["STORAGE_FULL"]
    assert refusal.retry_seconds


async def resumed(executor: Executor, run: Run) -> Run:
    """As an executor does, until the planner can take it again."""
    while True:
        again = await executor.attach(run.lease, run.assignment)
        try:
            await again.attached()
        except grpc.aio.AioRpcError as error:
            assert_full(Refusal(error))
            await asyncio.sleep(0.1)
            continue
        return again


@pytest.mark.parametrize(("full", "away"), [(0.3, 0.0), (0.6, 1.2), (2.5, 1.5)])
async def test_running_work_goes_on_when_there_is_space_again(
    tmp_path: Path, full: float, away: float
) -> None:
    """For less than a lease, and for longer; the executor comes back a while after."""
    with serving(tmp_path) as (disk, address):
        async with (
            Client(address) as client,
            Executor(address) as executor,
            asking(executor),
        ):
            created = await client.create()
            run = await executor.start()
            await run.report(0, 2)
            waiting = await client.create(queue=True)
            while (await client.get(created.name)).steps_done < 2:
                await asyncio.sleep(0.01)
            disk.fill()
            await run.report(2, 3)
            assert_full(await run.refusal())
            assert_full(await refused(executor.upload(run.lease, "image.png", b"picture")))
            for call in (
                client.generations.CreateGeneration(create_request(queue=True)),
                client.generations.Generate(generation_pb2.GenerateRequest(spec=spec())),
                client.generations.CancelGeneration(
                    generation_pb2.CancelGenerationRequest(name=waiting.name)
                ),
            ):
                assert_full(await refused(call))
            assert (await client.get(created.name)).steps_done == 2, "what is read is read"
            if away:
                await asyncio.sleep(full)
                disk.clear()
                await asyncio.sleep(away)
            else:
                asyncio.get_running_loop().call_later(full, disk.clear)
            again = await resumed(executor, run)
            assert again.next_step == 2
            await again.report(2, 6)
            await executor.upload(run.lease, "image.png", b"picture")
            await again.complete()
            ended = await client.ended(created.name)
        assert (ended.state, ended.attempt) == (SUCCEEDED, 1)
        files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
        assert [(path.name, path.read_bytes()) for path in files] == [("image.png", b"picture")]


async def test_work_that_nobody_waits_for_is_cancelled_when_there_is_space_again(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as (disk, address):
        async with Client(address) as watcher:
            async with Client(address) as client:
                request = generation_pb2.GenerateRequest(spec=spec(), queue_without_executor=True)
                call = client.generations.Generate(request)
                name = (await call.read()).event.generation
                disk.fill()
                call.cancel()
            await asyncio.sleep(0.5)
            assert (await watcher.get(name)).state == generation_pb2.GENERATION_STATE_QUEUED
            disk.clear()
            ended = await asyncio.wait_for(watcher.ended(name), 5)
    assert ended.state == CANCELLED


async def test_what_was_due_meanwhile_is_done_when_there_is_space_again(tmp_path: Path) -> None:
    with serving(tmp_path) as (disk, address):
        async with Client(address) as client:
            request: Any = create_request(queue=True)
            request.deadline.GetCurrentTime()
            request.deadline.seconds += 1
            created = (await client.generations.CreateGeneration(request)).generation
            disk.fill()
            await asyncio.sleep(1.5)
            assert (await client.get(created.name)).state != generation_pb2.GENERATION_STATE_FAILED
            disk.clear()
            ended = await asyncio.wait_for(client.ended(created.name), 5)
    assert ended.failure.code == "DEADLINE_EXCEEDED"
