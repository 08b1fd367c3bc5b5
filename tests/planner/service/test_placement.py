"""Executors that hold different placements, and such as load their model anew for another."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from itertools import pairwise

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, planner_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    MODEL,
    Client,
    Executor,
    asking,
    create_request,
    executor_message,
    refused,
)

INT8 = "quantize_config: {quant_type: int8_weight_only}"
FLOAT8 = "quantize_config: {quant_type: float8_per_row}"


def with_patience(settings: Settings, seconds: float) -> Settings:
    return replace(settings, timing=replace(settings.timing, reload_patience=seconds))


async def serve(executor: Executor, wait: float = 5.0) -> str | None:
    """Executes the next run, loading the model anew for it where that is needed."""
    lease = await executor.acquire(wait)
    if lease is None:
        return None
    run = await executor.attach(lease)
    await run.attached()
    executor.message.placement.CopyFrom(run.assignment.program.placement)
    await run.report(0, len(run.steps))
    await run.complete()
    return lease.generation


async def test_what_is_held_goes_first_and_then_the_oldest_that_a_reload_would_serve(
    settings: Settings,
) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, allow_reload=True) as executor,
    ):
        configs = [INT8, "", FLOAT8, "", INT8]
        created = [await client.create(queue=True, config=each) for each in configs]
        names = {each.name: i for i, each in enumerate(created)}
        order = [names[await serve(executor, wait=1.0) or ""] for _ in range(4)]
        assert order == [1, 3, 0, 4]
        assert await serve(executor, wait=0.1) is None, "its device has no float8"


async def test_work_reaches_a_waiting_executor_that_has_to_reload_at_once(
    settings: Settings,
) -> None:
    # So long that it does not look again by itself.
    timing = replace(settings.timing, connected_grace=20.0)
    async with (
        Planner(replace(settings, timing=timing)) as planner,
        Client(planner.address) as client,
        Executor(planner.address, allow_reload=True) as executor,
        asking(executor) as [acquiring],
    ):
        began = time.monotonic()
        response = await client.generations.CreateGeneration(create_request(config=INT8))
        assert (await acquiring).generation == response.generation.name
        assert time.monotonic() - began < 0.4
        [hint] = response.diagnostics
        assert (hint.severity, hint.code) == (planner_pb2.SEVERITY_HINT, "needs-reload")
        assert "executor exec-1 loads its model anew" in hint.message
        assert "wants int8_weight_only; it holds float32" in hint.message
        watch = generation_pb2.WatchGenerationRequest(name=response.generation.name)
        async for first in client.generations.WatchGeneration(watch):
            assert list(first.event.planned.diagnostics) == [hint]
            break


async def test_a_plan_is_made_for_the_executors_that_would_reload_for_it(
    settings: Settings,
) -> None:
    config = f"{INT8}\nparallelism_config: {{ulysses_size: auto}}"
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "four", world_size=4) as four,
        Executor(planner.address, "two", world_size=2, allow_reload=True) as two,
        asking(four, two) as [_, acquiring],
    ):
        created = await client.create(config=config)
        assert created.plan.program.topology.ulysses_size == 2
        assert created.plan.estimate.cost.dtype == "float32", "that of the executor"
        assert (await acquiring).generation == created.name


async def test_neither_placement_starves_and_reloads_are_apart(settings: Settings) -> None:
    patience = 0.5
    async with (
        Planner(with_patience(settings, patience)) as planner,
        Client(planner.address) as client,
        Executor(planner.address, allow_reload=True) as executor,
    ):
        held: list[tuple[float, str]] = []
        configs = ["", INT8]
        for config in configs * 4:
            await client.create(queue=True, config=config)
        ends_at = time.monotonic() + 4.0
        while time.monotonic() < ends_at:
            # As much of both comes as is done, whichever is done.
            assert await serve(executor) is not None
            quant_type = executor.message.placement.quant_type
            if not held or held[-1][1] != quant_type:
                held.append((time.monotonic(), quant_type))
            await client.create(queue=True, config=INT8 if quant_type else "")
            await asyncio.sleep(0.02)
    assert 3 <= len(held) <= 1 + 4.0 / patience, held
    stays = [after[0] - before[0] for before, after in pairwise(held[1:])]
    assert min(stays) > patience * 0.9, stays


async def test_work_waits_for_the_busy_executor_that_holds_its_placement(
    settings: Settings,
) -> None:
    async with (
        Planner(with_patience(settings, 0.2)) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "idle", allow_reload=True) as idle,
        Executor(planner.address, "busy") as busy,
    ):
        first = await client.create(queue=True, config=INT8)
        busy.message.placement.CopyFrom(first.plan.program.placement)
        run = await busy.start()
        second = await client.create(config=INT8)
        assert await idle.acquire(wait=1.0) is None
        await run.report(0, len(run.steps))
        await run.complete()
        again = await busy.acquire()
        assert again is not None
        assert again.generation == second.name
        await client.create(config=INT8)
        run = await busy.attach(again)
        await run.attached()
        async with asking(idle) as [acquiring]:
            await busy.die()
            # Whoever held it is gone: the lost run and the queued one need a reload now.
            assert (await asyncio.wait_for(acquiring, 5)).generation == second.name


async def test_an_executor_counts_as_what_it_is_loading(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "one", allow_reload=True) as one,
        Executor(planner.address, "two", allow_reload=True) as two,
    ):
        await client.create(queue=True, config=INT8)
        run = await one.start()
        second = await client.create(config=INT8)
        assert await two.acquire(wait=0.8) is None, "one will hold that placement"
        request = planner_pb2.CompilePlanRequest(model=MODEL, config=INT8)
        found = (await client.planner.CompilePlan(request)).executors
        assert [(each.executor, each.after_reload) for each in found] == [
            ("one", False),
            ("two", True),
        ]
        await client.create()
        assert await two.acquire(wait=1.0) is not None, "that is two's own"
        await run.report(0, len(run.steps))
        await run.complete()
        await client.generations.CancelGeneration(
            generation_pb2.CancelGenerationRequest(name=second.name)
        )
        # It may have gone back: what it announces is what it holds.
        await one.acquire(wait=0.0)
        found = (await client.planner.CompilePlan(request)).executors
        assert found[0].after_reload


async def test_a_plan_that_the_device_cannot_do_is_refused_with_its_name(
    settings: Settings,
) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "on-cpu", allow_reload=True) as on_cpu,
        Executor(
            planner.address,
            "on-a100",
            allow_reload=True,
            device="cuda",
            compute_capability="sm80",
            dtype="bfloat16",
        ) as on_a100,
        asking(on_cpu, on_a100),
    ):
        refusal = await refused(client.generations.CreateGeneration(create_request(config=FLOAT8)))
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
        least = "float8_per_row needs a CUDA device of at least sm89"
        assert f"on-a100 holds bfloat16, and {least}, not sm80" in refusal.message
        assert f"on-cpu holds float32, and {least}, not cpu" in refusal.message


async def test_attention_backends_are_matched_one_by_one(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "plain") as plain,
        Executor(planner.address, "more", attention_backends=["_native_math", "native"]) as more,
    ):
        math_only = await client.create(queue=True, config="attention_backend: _native_math")
        either = await client.create(queue=True)
        assert await serve(plain) == either.name
        native = await client.create(config="attention_backend: native")
        assert await serve(more) == math_only.name
        assert await serve(more) == native.name, "the oldest over all of its keys"
        refusal = await refused(
            client.generations.CreateGeneration(create_request(config="attention_backend: flash"))
        )
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
        assert "attention backend flash" in refusal.message


async def test_a_reload_takes_its_time_before_the_first_step_only(settings: Settings) -> None:
    timing = replace(settings.timing, max_step_seconds=0.4, max_reload_seconds=20.0)
    async with (
        Planner(replace(settings, timing=timing)) as planner,
        Client(planner.address) as client,
        Executor(planner.address, allow_reload=True) as executor,
    ):
        created = await client.create(queue=True, config=INT8)
        run = await executor.start()
        for _ in range(10):
            await asyncio.sleep(0.1)
            await run.send(heartbeat=dispatch_pb2.Heartbeat())
        await run.report(0, 1)
        assert (await client.get(created.name)).attempt == 1
        while not run.call.done():
            await run.send(heartbeat=dispatch_pb2.Heartbeat())
            await asyncio.sleep(0.1)
        assert (await run.refusal()).code == grpc.StatusCode.ABORTED


async def test_a_reload_that_fails_ends_its_run_with_the_reason(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, allow_reload=True) as executor,
    ):
        created = await client.create(queue=True, config=INT8)
        run = await executor.start()
        failure = dispatch_pb2.RunFailure(code="FAILED_PRECONDITION", message="no such kernel")
        await run.send(failure=failure)
        ended = await client.ended(created.name)
        assert (ended.failure.code, ended.failure.message) == (
            "FAILED_PRECONDITION",
            "no such kernel",
        )
        plain = await client.create(queue=True)
        assert await serve(executor) == plain.name


async def test_work_lost_in_a_reload_goes_to_whoever_could_reload_too(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "first", allow_reload=True) as first,
        Executor(planner.address, "second", allow_reload=True) as second,
    ):
        created = await client.create(queue=True, config=INT8)
        await first.start()
        async with asking(second) as [acquiring]:
            await first.die()
            lease = await asyncio.wait_for(acquiring, 5)
            assert (lease.generation, lease.epoch) == (created.name, 2)
        await second.die()
        ended = await client.ended(created.name)
        assert "no other connected executor" in ended.failure.message


@pytest.mark.parametrize("seconds", [12.5, 0.0, -1.0, math.nan, math.inf])
async def test_the_record_says_how_long_a_reload_took(settings: Settings, seconds: float) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(queue=True)
        run = await executor.start()
        await run.report(0, len(run.steps))
        await run.send(completion=dispatch_pb2.Completion(reload_seconds=seconds))
        ended = await client.ended(created.name)
        if seconds >= 0 and math.isfinite(seconds):
            assert ended.record.reload_seconds == seconds
        else:
            assert (await run.refusal()).code == grpc.StatusCode.INVALID_ARGUMENT
            assert ended.state == generation_pb2.GENERATION_STATE_FAILED
            assert "reload_seconds" in ended.failure.message


async def test_a_compiled_plan_comes_with_who_could_run_it(settings: Settings) -> None:
    request = planner_pb2.CompilePlanRequest(model=MODEL, config=INT8)
    async with Planner(settings) as planner, Client(planner.address) as client:

        async def executors() -> list[planner_pb2.ExecutorMatch]:
            alone = await client.planner.CompilePlan(request)
            both = await client.planner.CompilePlans(
                planner_pb2.CompilePlansRequest(requests=[request])
            )
            assert both.results[0].compiled == alone
            return list(alone.executors)

        assert await executors() == []
        placement = (await client.planner.CompilePlan(request)).plan.program.placement
        async with (
            Executor(planner.address, "c", allow_reload=True) as plain,
            Executor(planner.address, "b", placement=placement) as int8,
            Executor(planner.address, "a", world_size=2) as wide,
            Executor(planner.address, "other", model="other") as other,
            asking(plain, int8, wide, other),
        ):
            assert await executors() == [
                planner_pb2.ExecutorMatch(
                    executor="a",
                    differences=[
                        "the plan wants world size 1, it has world size 2",
                        "the plan wants int8_weight_only, it holds float32",
                    ],
                ),
                planner_pb2.ExecutorMatch(executor="b"),
                planner_pb2.ExecutorMatch(
                    executor="c",
                    differences=["the plan wants int8_weight_only, it holds float32"],
                    after_reload=True,
                ),
            ]
        await asyncio.sleep(settings.timing.connected_grace + 0.2)
        assert await executors() == [], "who is connected is no part of what is kept"


async def test_of_many_executors_the_first_by_name_are_listed(settings: Settings) -> None:
    timing = replace(settings.timing, connected_grace=20.0)
    async with (
        Planner(replace(settings, timing=timing)) as planner,
        Client(planner.address) as client,
    ):
        for i in reversed(range(66)):
            message = executor_message(f"e{i:02}")
            request = dispatch_pb2.AcquireLeaseRequest(executor=message)
            await client.dispatch.AcquireLease(request)
        response = await client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=MODEL))
        assert [each.executor for each in response.executors] == [f"e{i:02}" for i in range(64)]
        refusal = await refused(client.generations.CreateGeneration(create_request(config=INT8)))
        assert "the 66 connected executors hold float32 (e00, e01, " in refusal.message
        assert "e07 and 58 more); queue_without_executor would queue it" in refusal.message


async def test_a_planner_that_starts_gives_executors_time_to_come_back(
    settings: Settings,
) -> None:
    settings = replace(settings, timing=replace(settings.timing, return_window=1.0))
    async with Planner(settings) as planner, Client(planner.address) as client:
        first = await client.create(queue=True, config=INT8)
        second = await client.create(queue=True, config=INT8)
        plain = await client.create(queue=True)
    async with (
        Planner(settings) as planner,
        Executor(planner.address, "early", allow_reload=True) as early,
        Executor(planner.address, "holder") as holder,
    ):
        holder.message.placement.CopyFrom(first.plan.program.placement)
        assert await serve(early) == plain.name, "what it holds it takes"
        assert await early.acquire(wait=0.2) is None
        assert await serve(holder) == first.name
        await holder.die()
        assert await serve(early) == second.name


async def test_a_restarted_planner_knows_what_queued_work_needs(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = await client.create(queue=True, config=INT8)
    async with (
        Planner(settings) as planner,
        Executor(planner.address, allow_reload=True) as executor,
    ):
        lease = await executor.acquire(wait=1.0)
        assert lease is not None
        assert lease.generation == created.name
