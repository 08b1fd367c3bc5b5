"""Who is next: by priority, by age, and with no client in the way of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import Client, Executor, create_request, refused, spec
from tests.planner.service.planners import known


async def create(client: Client, priority: int, **changes: Any) -> generation_pb2.Generation:
    request = create_request(queue=True, **changes)
    request.priority = priority
    return (await client.generations.CreateGeneration(request)).generation


async def position(client: Client, name: str) -> int:
    request = generation_pb2.WatchGenerationRequest(name=name, after_sequence=1)
    call = client.generations.WatchGeneration(request)
    queued = (await call.read()).event.queued
    call.cancel()
    return queued.position


async def leased(address: str, count: int) -> list[str]:
    """The names of what so many executors take, one after the other."""
    names = []
    for number in range(count):
        async with Executor(address, f"exec-{number}") as executor:
            lease = await executor.acquire(wait=0)
            assert lease is not None
            names.append(lease.generation)
    return names


async def test_higher_priorities_are_leased_first_and_equal_ones_in_order(
    settings: Settings,
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = [await create(client, p) for p in (0, -1, 100, 0, -100, 100, 1)]
        assert [each.priority for each in created] == [0, -1, 100, 0, -100, 100, 1]
        assert [await position(client, each.name) for each in created] == [0, 1, 0, 2, 4, 1, 2]
        order = [created[number].name for number in (2, 5, 6, 0, 3, 1, 4)]
        assert await leased(planner.address, 7) == order


async def test_an_executor_reloads_for_the_highest_priority(settings: Settings) -> None:
    int8 = "quantize_config:\n  quant_type: int8_weight_only\n"
    per_row = "quantize_config:\n  quant_type: int8_per_row\n"
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, allow_reload=True) as executor,
    ):
        await create(client, 0, config=int8)
        urgent = await create(client, 5, config=per_row)
        lease = await executor.acquire(wait=0)
        assert lease is not None
        assert lease.generation == urgent.name


async def test_the_queue_has_a_bound_and_each_client_one_of_its_own(settings: Settings) -> None:
    limits = replace(settings.limits, queue_length=4, queue_per_client=3)
    async with known(replace(settings, limits=limits), "anna", "bert") as (ann, bob):
        for _ in range(3):
            await create(ann, 0)
        refusal = await refused(ann.generations.CreateGeneration(create_request(queue=True)))
        assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [info.reason for info in refusal.infos] == ["QUEUE_FULL"]
        assert "3 generations of this client" in refusal.message
        assert refusal.retry_seconds
        await create(bob, 0)
        refusal = await refused(bob.generations.CreateGeneration(create_request(queue=True)))
        assert "4 generations are queued" in refusal.message


@pytest.mark.parametrize("priority", [-101, 101, 2**31 - 1, -(2**31)])
async def test_a_priority_out_of_bounds_is_refused(settings: Settings, priority: int) -> None:
    request = create_request(queue=True)
    request.priority = priority
    generate = generation_pb2.GenerateRequest(spec=spec(), priority=priority)
    async with Planner(settings) as planner, Client(planner.address) as client:
        for call in (
            client.generations.CreateGeneration(request),
            client.generations.Generate(generate),
        ):
            refusal = await refused(call)
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
            assert "allowed: -100 to 100" in refusal.violations["priority"]
