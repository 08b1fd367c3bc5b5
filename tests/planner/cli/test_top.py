"""``ditplan top`` shows what a planner and its executors do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from planner.service.server import Planner, Settings
from tests.planner.cli.commands import ditplan
from tests.planner.service.credentials import token, with_tokens
from tests.planner.service.peers import Client, Executor, asking

OTHER = "black-forest-labs/FLUX.1-schnell"


async def test_one_look_shows_executors_running_steps_and_the_queue(settings: Settings) -> None:
    # The run sends no heartbeats while commands start.
    patient = replace(settings, timing=replace(settings.timing, lease_ttl=30.0))
    async with (
        Planner(patient) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "busy", compiled=True) as busy,
        Executor(planner.address, "idle", tp_size=2, world_size=2) as idle,
        asking(busy),
    ):
        running = await client.create()
        run = await busy.start()
        await run.report(0, 3)
        queued = await client.create(queue=True, model=OTHER)
        async with asking(idle):
            text = await ditplan("top", "--planner", planner.address)
            data = await ditplan("top", "--planner", planner.address, "--once", "--format", "json")

    assert (text.returncode, text.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in text.stdout.splitlines()]
    assert lines[0].startswith(f"ditplan 0.1.0 at {planner.address}, 20")
    assert lines[1].startswith("1 queued, the oldest for ")
    assert lines[1].endswith("; 1 running; 2 executors connected")
    assert "busy black-forest-labs/FLUX.1-dev cpu float32, compiled running" in lines
    held = "cpu float32, 2 ranks, tp_size 2 idle"
    assert f"idle black-forest-labs/FLUX.1-dev {held}" in lines
    identifier = running.name.removeprefix("generations/")
    [step] = [line for line in lines if line.startswith(f"{identifier} busy ")]
    assert f"{running.plan.plan_id[:12]} ██████████░░░░░░░░░░ 3/6 full, " in step
    [waits] = [line for line in lines if line.startswith(queued.name.removeprefix("generations/"))]
    assert waits.split()[1:3] == [OTHER, "0"]

    document = json.loads(data.stdout)
    assert (document["queued"], document["running"]) == (1, 1)
    assert document["executors"][0]["run"]["steps_done"] == 3
    assert document["executors"][1]["silent_seconds"] == 0


async def test_an_executor_that_does_not_call_is_shown_as_silent(settings: Settings) -> None:
    patient = replace(settings, timing=replace(settings.timing, connected_grace=60.0))
    async with Planner(patient) as planner, Executor(planner.address, "gone") as executor:
        async with asking(executor):
            pass
        await asyncio.sleep(1)
        shown = await ditplan("top", "--planner", planner.address, "--once")
    assert "float32  silent for " in shown.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("anna", "error: PERMISSION_DENIED: anna is client, which may not call "),
        ("ranks", "error: PERMISSION_DENIED: ranks is executor, which may not call "),
        ("late", "error: UNAUTHENTICATED: the token has expired"),
        ("", "error: UNAUTHENTICATED: a token is needed"),
    ],
)
async def test_who_may_not_look_is_told_so_in_one_line(
    settings: Settings, tmp_path: Path, name: str, says: str
) -> None:
    async with Planner(with_tokens(settings, tmp_path)) as planner:
        secret = {"DITPLAN_TOKEN": token(name)} if name else {}
        refused = await ditplan("top", "--planner", planner.address, **secret)
    assert (refused.returncode, refused.stdout) == (2, "")
    [line] = refused.stderr.splitlines()
    assert line.startswith(says)


async def test_a_planner_that_is_not_there_is_one_line() -> None:
    refused = await ditplan("top", "--planner", "127.0.0.1:9")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith("error: UNAVAILABLE: ")
