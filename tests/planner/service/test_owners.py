"""Lists and what they leave out: filters, pages, and the work of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
from ditplan.v1 import generation_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from planner.service.server import Planner, Settings
from tests.planner.service.credentials import token
from tests.planner.service.peers import (
    MODEL,
    Client,
    Executor,
    create_request,
    refused,
)
from tests.planner.service.planners import known

SCHNELL = "black-forest-labs/FLUX.1-schnell"
QUEUED = generation_pb2.GENERATION_STATE_QUEUED
CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED
SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED


async def listed(client: Client, **changes: Any) -> Sequence[generation_pb2.Generation]:
    request = generation_pb2.ListGenerationsRequest(**changes)
    return (await client.generations.ListGenerations(request)).generations


async def cancel(client: Client, name: str) -> None:
    request = generation_pb2.CancelGenerationRequest(name=name)
    await client.generations.CancelGeneration(request)


async def test_a_list_has_what_its_filters_say(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        a, b = [(await client.create(queue=True, model=m)).name for m in (MODEL, SCHNELL)]
        await asyncio.sleep(0.01)
        since = Timestamp()
        since.FromNanoseconds(time.time_ns())
        c, d = [(await client.create(queue=True, model=m)).name for m in (MODEL, SCHNELL)]
        await cancel(client, b)
        await cancel(client, c)
        for filters, names in (
            ({}, [d, c, b, a]),
            ({"states": [QUEUED]}, [d, a]),
            ({"states": [CANCELLED, QUEUED]}, [d, c, b, a]),
            ({"states": [SUCCEEDED]}, []),
            ({"model": MODEL}, [c, a]),
            ({"model": "unheard-of"}, []),
            ({"created_since": since}, [d, c]),
            ({"created_since": Timestamp(seconds=4 * 10**9)}, []),
            ({"states": [CANCELLED], "model": MODEL, "created_since": since}, [c]),
        ):
            assert [each.name for each in await listed(client, **filters)] == names, filters


async def test_pages_of_a_filtered_list_go_on_and_only_with_their_filters(
    settings: Settings,
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        names = [(await client.create(queue=True, model=m)).name for m in (MODEL, SCHNELL) * 3]
        request = generation_pb2.ListGenerationsRequest(page_size=2, model=MODEL, states=[QUEUED])
        first = await client.generations.ListGenerations(request)
        request.page_token = first.next_page_token
        second = await client.generations.ListGenerations(request)
        found = [each.name for each in [*first.generations, *second.generations]]
        assert found == [names[4], names[2], names[0]]
        assert second.next_page_token == ""
        for other in ({"model": SCHNELL}, {}, {"model": MODEL, "states": [CANCELLED, QUEUED]}):
            changed = generation_pb2.ListGenerationsRequest(page_token=request.page_token, **other)
            refusal = await refused(client.generations.ListGenerations(changed))
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
            assert "other filters" in refusal.violations["page_token"]


async def test_filters_that_make_no_sense_are_refused_together(settings: Settings) -> None:
    request = generation_pb2.ListGenerationsRequest(
        states=[QUEUED, 0, 99], model="a\nb", created_since=Timestamp(nanos=-1)
    )
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(client.generations.ListGenerations(request))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.violations) == {"states[1]", "states[2]", "model", "created_since"}
        many = generation_pb2.ListGenerationsRequest(states=[QUEUED] * 17)
        refusal = await refused(client.generations.ListGenerations(many))
        assert set(refusal.violations) == {"states"}


async def test_the_work_of_others_does_not_exist(settings: Settings) -> None:
    names = ("anna", "bert", "root")
    async with known(settings, *names) as (ann, bob, admin):
        mine, theirs = await ann.create(queue=True), await bob.create(queue=True)
        async with Executor(ann.address, token=token("ranks")) as worker:
            await worker.serve_one()
        generations = bob.generations
        artifact = f"{mine.name}/artifacts/image.png"
        for call in (
            generations.GetGeneration(generation_pb2.GetGenerationRequest(name=mine.name)),
            generations.CancelGeneration(generation_pb2.CancelGenerationRequest(name=mine.name)),
            generations.WatchGeneration(generation_pb2.WatchGenerationRequest(name=mine.name)),
            generations.ReadArtifact(generation_pb2.ReadArtifactRequest(name=artifact)),
        ):
            refusal = await refused(call)
            assert refusal.code == grpc.StatusCode.NOT_FOUND
            assert "anna" not in refusal.message
        assert [each.name for each in await listed(ann)] == [mine.name]
        assert [each.name for each in await listed(bob)] == [theirs.name]
        assert (await ann.get(mine.name)).state == SUCCEEDED
        assert [each.owner for each in await listed(admin)] == ["bert", "anna"]
        assert (await admin.get(mine.name)).owner == "anna"
        owned = [await ann.get(mine.name), *await listed(ann), await ann.ended(mine.name)]
        assert [each.owner for each in owned] == ["", "", ""]
        async for response in admin.generations.ReadArtifact(
            generation_pb2.ReadArtifactRequest(name=artifact)
        ):
            assert response.data == b"picture"
        await cancel(admin, theirs.name)
        assert (await bob.get(theirs.name)).state == CANCELLED


async def test_a_page_token_is_of_no_use_to_others(settings: Settings) -> None:
    async with known(settings, "anna", "bert") as (ann, bob):
        for _ in range(2):
            await ann.create(queue=True)
        request = generation_pb2.ListGenerationsRequest(page_size=1)
        request.page_token = (await ann.generations.ListGenerations(request)).next_page_token
        assert request.page_token
        refusal = await refused(bob.generations.ListGenerations(request))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_request_ids_are_each_clients_own(settings: Settings) -> None:
    async with known(settings, "anna", "bert") as (ann, bob):
        first = await ann.create(request_id="mine", queue=True)
        other = await bob.create(request_id="mine", queue=True, prompt="another")
        assert first.name != other.name
        assert (await ann.create(request_id="mine", queue=True)).name == first.name
        reused = ann.generations.CreateGeneration(create_request("mine", queue=True, prompt="x"))
        assert (await refused(reused)).code == grpc.StatusCode.ALREADY_EXISTS
