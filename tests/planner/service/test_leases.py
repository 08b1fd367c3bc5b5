"""Leases: who holds the work, and what becomes of it when the holder is gone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, plan_pb2

from planner.dispatch import settlement
from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    ADAPTIVE_CONFIG,
    Client,
    Executor,
    asking,
    create_request,
    refused,
)
from tests.planner.service.planners import connected


async def test_waiting_executors_get_work_at_once_and_each_its_own(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "exec-1") as one,
        Executor(planner.address, "exec-2") as two,
        asking(one, two) as tasks,
    ):
        began = time.monotonic()
        names = {(await client.create()).name, (await client.create()).name}
        leases = await asyncio.gather(*tasks)
        assert {lease.generation for lease in leases if lease} == names
        assert time.monotonic() - began < 1.0


async def test_work_goes_only_to_an_executor_that_matches(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "other-model", model="another") as other,
        Executor(planner.address, "other-placement") as quantized,
        Executor(planner.address, "other-size", world_size=2) as wide,
    ):
        quantized.message.placement.quant_type = "float8"
        await client.create(queue=True)
        for executor in (other, quantized, wide):
            assert await executor.acquire(wait=0.1) is None
        async with Executor(planner.address, "fitting") as fitting:
            assert await fitting.acquire(wait=1) is not None


async def test_a_wait_ends_empty_handed(settings: Settings) -> None:
    async with Planner(settings) as planner, Executor(planner.address) as executor:
        began = time.monotonic()
        assert await executor.acquire(wait=0.2) is None
        assert 0.1 < time.monotonic() - began < 1.0


async def test_a_lost_stream_is_taken_up_where_it_broke(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create(config=ADAPTIVE_CONFIG)
        run = await executor.start()
        await run.report(0, 3)
        await asyncio.sleep(0.1)
        run.call.cancel()
        again = await executor.attach(run.lease, run.assignment)
        await again.attached()
        assert again.next_step == 3
        await again.report(1, 6)
        await again.complete()
        events = await client.watch(created.name)
    steps = [e.step.step for e in events if e.HasField("step")]
    assert steps == list(range(6)), "a step reported twice is stored once"
    assert events[-1].finished.attempt == 1


async def test_lost_work_goes_to_another_executor(settings: Settings) -> None:
    async with connected(settings, "first") as (client, first):
        created = await client.create(config=ADAPTIVE_CONFIG)
        run = await first.start()
        await run.report(0, 3)
        async with Executor(client.address, "second") as second, asking(second) as [waiting]:
            await first.die()
            lost_at = time.monotonic()
            lease = await waiting
            assert time.monotonic() - lost_at < 2.0
            assert lease.epoch > run.lease.epoch
            rerun = await second.attach(lease)
            await rerun.attached()
            assert rerun.next_step == 0
            await rerun.report(0, 6)
            await rerun.complete()
            events = await client.watch(created.name)

    kinds = [event.WhichOneof("event") for event in events]
    retried = ["queued", "started", *["step"] * 6, "finished"]
    assert kinds == ["planned", "queued", "started", *["step"] * 3, *retried]
    assert events[6].queued.reason == "executor first was lost at step 3"
    assert (events[7].started.executor, events[7].started.attempt) == ("second", 2)
    assert len(events[-1].finished.record.steps) == 6


async def test_lost_work_that_no_one_else_can_take_fails_with_its_step(settings: Settings) -> None:
    async with connected(settings, "only") as (client, executor):
        created = await client.create()
        run = await executor.start()
        await run.report(0, 4)
        await asyncio.sleep(0.1)
        await executor.die()
        began = time.monotonic()
        ended = await client.ended(created.name)
        assert time.monotonic() - began < 2.0
    assert ended.state == generation_pb2.GENERATION_STATE_FAILED
    assert ended.failure.code == "UNAVAILABLE"
    assert ended.failure.step == 4
    assert "executor only was lost at step 4 of 6" in ended.failure.message


async def test_work_is_not_leased_without_end(settings: Settings) -> None:
    settings = replace(
        settings,
        limits=replace(settings.limits, attempts=2),
        timing=replace(settings.timing, connected_grace=20.0),
    )
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "spare") as spare,
    ):
        created = await client.create(queue=True)
        for name in ("one", "two"):
            async with Executor(planner.address, name) as executor:
                await executor.start()
                assert await spare.acquire(wait=0) is None
        ended = await client.ended(created.name)
    assert ended.failure.code == "UNAVAILABLE"
    assert "attempt 2 of at most 2" in ended.failure.message


async def test_a_silent_executor_loses_its_lease_and_is_told(settings: Settings) -> None:
    settings = replace(settings, timing=replace(settings.timing, lease_ttl=0.4))
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        for _ in range(4):
            await asyncio.sleep(0.2)
            await run.send(heartbeat=dispatch_pb2.Heartbeat())
        still = await client.get(created.name)
        assert still.state == generation_pb2.GENERATION_STATE_RUNNING
        ended = await client.ended(created.name)
        assert (await run.refusal()).code == grpc.StatusCode.ABORTED
    assert ended.failure.code == "UNAVAILABLE"


async def test_an_executor_that_is_stuck_loses_its_lease_for_all_its_heartbeats(
    settings: Settings,
) -> None:
    timing = replace(settings.timing, max_step_seconds=0.6)
    async with (
        Planner(replace(settings, timing=timing)) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "stuck") as stuck,
        Executor(planner.address, "well") as well,
        asking(stuck),
    ):
        created = await client.create()
        run = await stuck.start()
        async with asking(well) as [waiting]:
            for step in range(3):
                # Slow, but not stuck: longer than the bound in all.
                await asyncio.sleep(0.3)
                await run.report(step, step + 1)
            for _ in range(20):
                await run.send(heartbeat=dispatch_pb2.Heartbeat())
                await asyncio.sleep(0.1)
                if waiting.done():
                    break
            assert waiting.done()
            assert waiting.result().epoch == 2
            assert (await run.refusal()).code == grpc.StatusCode.ABORTED
        taken = await client.get(created.name)
        assert (taken.executor, taken.attempt) == ("well", 2)


async def test_a_lease_that_no_one_attaches_to_is_not_kept(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create()
        assert await executor.leased() is not None
        again = await executor.acquire(wait=0.3)
        assert again is not None
        assert (again.generation, again.epoch) == (created.name, 2), "it was started again"


class Clock:
    """The clock of this process, planner included, which a test may set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)


async def test_a_clock_that_is_set_ahead_costs_no_one_its_lease(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        await run.report(0, 2)
        await client.get(created.name)
        clock.ahead = 3600.0
        # Wakes whoever looks at leases.
        await client.create(queue=True, model="black-forest-labs/FLUX.1-schnell")
        await run.report(2, 6)
        await run.complete()
        ended = await client.get(created.name)
    assert (ended.state, ended.attempt) == (generation_pb2.GENERATION_STATE_SUCCEEDED, 1)


async def test_a_clock_that_is_set_back_does_not_lengthen_the_lease_of_the_dead(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(settlement, "_CLOCK_LOOK_SECONDS", 1.0)
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        Executor(planner.address, "exec-2") as other,
        asking(executor),
    ):
        await client.create()
        await executor.start()
        async with asking(other) as [taking]:
            await executor.die()
            await asyncio.sleep(0.05)
            clock.ahead = -3600.0
            lease = await asyncio.wait_for(taking, 5)
    assert lease.epoch == 2


async def test_stale_holders_are_refused_everywhere(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "first") as first,
        asking(first) as [acquiring],
    ):
        await client.create()
        stale = await acquiring
        async with Executor(planner.address, "second") as second, asking(second) as [waiting]:
            fresh = await waiting
            assert fresh.epoch == stale.epoch + 1
            for lease in (
                stale,
                dispatch_pb2.Lease(generation=stale.generation, epoch=99),
                dispatch_pb2.Lease(generation=stale.generation, epoch=2**64 - 1),
                dispatch_pb2.Lease(generation=stale.generation),
                dispatch_pb2.Lease(generation="generations/0123456789abcdef", epoch=1),
            ):
                run = await first.attach(lease)
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await run.receive()
                assert refusal.value.code() == grpc.StatusCode.ABORTED
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await first.upload(lease, "image.png", b"late")
                assert refusal.value.code() == grpc.StatusCode.ABORTED
            stranger = await first.attach(fresh)
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await stranger.receive()
            assert refusal.value.code() == grpc.StatusCode.ABORTED


async def test_a_name_in_use_is_refused(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "same") as one,
        Executor(planner.address, "same") as two,
        asking(one),
    ):
        await client.create()
        await one.start()
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await two.acquire()
        assert refusal.value.code() == grpc.StatusCode.ALREADY_EXISTS


async def test_a_newer_call_of_an_executor_supersedes_its_older(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Executor(planner.address) as executor,
        asking(executor) as [older],
    ):
        newer = asyncio.create_task(executor.acquire(wait=0.5))
        assert await asyncio.wait_for(older, 0.4) is None
        await newer


async def test_reported_failures_are_retried_only_where_that_can_help(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(queue=True)
        for retryable, code in ((True, "UNAVAILABLE"), (False, "RESOURCE_EXHAUSTED")):
            run = await executor.start()
            await run.send(
                failure=dispatch_pb2.RunFailure(code=code, message="why", retryable=retryable)
            )
            done = await run.receive()
            assert done is not None
            assert done.WhichOneof("message") == "done"
        ended = await client.ended(created.name)
    assert (ended.failure.code, ended.failure.message) == ("RESOURCE_EXHAUSTED", "why")
    assert ended.attempt == 2


async def test_what_is_handed_back_is_drawn_however_often(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        created = await client.create(queue=True)
        for _ in range(settings.limits.attempts + 1):
            run = await executor.start()
            await run.send(
                failure=dispatch_pb2.RunFailure(
                    code="UNAVAILABLE", message="bye", retryable=True, handed_back=True
                )
            )
            done = await run.receive()
            assert done is not None
            assert done.WhichOneof("message") == "done"
        run = await executor.start()
        await run.report(0, 6)
        await run.complete()
        ended = await client.ended(created.name)
    assert ended.state == generation_pb2.GENERATION_STATE_SUCCEEDED
    assert ended.attempt == settings.limits.attempts + 2


@pytest.mark.parametrize(
    "lie", ["full as cached", "gap", "too few ops", "early completion", "bytes"]
)
async def test_reports_that_belie_the_plan_fail_the_run(settings: Settings, lie: str) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create(config=ADAPTIVE_CONFIG)
        run = await executor.start()
        await run.report(0, 6 if lie == "bytes" else 1)
        outcome = run.outcome(1)
        if lie == "full as cached":
            outcome.ops[0].kind = plan_pb2.OP_KIND_CACHED
        elif lie == "gap":
            outcome = run.outcome(2)
        elif lie == "too few ops":
            del outcome.ops[:]
        if lie == "early completion":
            await run.send(completion=dispatch_pb2.Completion())
        elif lie == "bytes":
            await run.send(completion=dispatch_pb2.Completion(cache_bytes=[1, 2]))
        else:
            await run.send(step_reports=dispatch_pb2.StepReports(steps=[outcome]))
        assert (await run.refusal()).code == grpc.StatusCode.INVALID_ARGUMENT
        ended = await client.ended(created.name)
    assert ended.failure.code == "INTERNAL"
    assert ended.failure.step == (6 if lie == "bytes" else 1)
    assert ("1 columns" if lie == "bytes" else "step") in ended.failure.message


async def test_work_that_no_one_takes_ends_in_time(settings: Settings) -> None:
    settings = replace(settings, timing=replace(settings.timing, max_queue_seconds=0.3))
    async with Planner(settings) as planner, Client(planner.address) as client:
        created = await client.create(queue=True)
        ended = await client.ended(created.name)
    assert ended.failure.code == "DEADLINE_EXCEEDED"


async def test_a_full_queue_says_when_to_come_back(settings: Settings) -> None:
    settings = replace(settings, limits=replace(settings.limits, queue_length=1))
    async with Planner(settings) as planner, Client(planner.address) as client:
        await client.create(queue=True)
        refusal = await refused(client.generations.CreateGeneration(create_request(queue=True)))
    assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.retry_seconds
