"""One generation from its creation to its record."""

from __future__ import annotations

import asyncio
import hashlib

from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import ADAPTIVE_CONFIG, Client, Executor, asking
from tests.planner.service.planners import connected


async def test_events_tell_the_run_in_order(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        serving = asyncio.create_task(executor.serve_one())
        await asyncio.sleep(0.2)
        created = await client.create(config=ADAPTIVE_CONFIG)
        run = await serving
        events = await client.watch(created.name)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["planned", "queued", "started", *["step"] * 6, "finished"]
    assert [event.step.step for event in events if event.HasField("step")] == list(range(6))
    assert {event.generation for event in events} == {created.name}
    assert run.assignment.plan_id == events[0].planned.plan.plan_id == created.plan.plan_id
    assert events[2].started.executor == "exec-1"
    finished = events[-1].finished
    assert finished.state == generation_pb2.GENERATION_STATE_SUCCEEDED
    assert finished.steps_done == 6
    assert finished.attempt == 1


async def test_an_executor_gets_the_whole_plan_and_the_filled_in_spec(settings: Settings) -> None:
    async with connected(settings) as (client, executor):
        created = await client.create(config=ADAPTIVE_CONFIG, num_inference_steps=600)
        run = await executor.start()

    assert plan_id(run.assignment.program) == run.assignment.plan_id == created.plan.plan_id
    assert len(run.steps) == 600
    assert run.next_step == 0
    spec = run.assignment.spec
    assert spec.prompt == "a red circle"
    assert (spec.height, spec.width) == (1024, 1024)
    assert spec.HasField("seed")
    assert spec.seed == created.spec.seed
    assert spec.WhichOneof("plan_source") is None


async def test_the_record_holds_decided_ops_and_can_be_replayed(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        serving = asyncio.create_task(executor.serve_one())
        await asyncio.sleep(0.2)
        first = await client.create(config=ADAPTIVE_CONFIG)
        await serving
        record = (await client.ended(first.name)).record

        serving = asyncio.create_task(executor.serve_one())
        await asyncio.sleep(0.2)
        second = await client.create(program=record.program)
        rerun = await serving
        replayed = (await client.ended(second.name)).record

    planned = {op.kind for op in first.plan.program.ops}
    assert plan_pb2.OP_KIND_ADAPTIVE in planned
    decided = {(op.kind, op.reason) for op in record.program.ops}
    assert (plan_pb2.OP_KIND_CACHED, plan_pb2.REASON_REPLAY) in decided
    assert plan_pb2.OP_KIND_ADAPTIVE not in {kind for kind, _ in decided}
    assert record.plan_id == first.plan.plan_id
    assert len(record.steps) == 6
    assert second.plan.plan_id == plan_id(record.program)
    assert rerun.assignment.spec.WhichOneof("plan_source") is None, "the program is sent once"
    assert replayed.program == record.program


async def test_artifacts_come_back_in_chunks_from_any_offset(settings: Settings) -> None:
    picture = bytes(range(256)) * 10_000
    async with connected(settings) as (client, executor):
        created = await client.create()
        run = await executor.start()
        await run.report(0, 6)
        await executor.upload(run.lease, "image.png", picture)
        await run.complete()

        request = generation_pb2.ReadArtifactRequest(name=f"{created.name}/artifacts/image.png")
        whole = [r async for r in client.generations.ReadArtifact(request)]
        request.offset = 2_000_000
        tail = [r async for r in client.generations.ReadArtifact(request)]
        request.offset = len(picture)
        nothing = [r async for r in client.generations.ReadArtifact(request)]
        ended = await client.get(created.name)

    assert b"".join(r.data for r in whole) == picture
    assert max(len(r.data) for r in whole) <= 1 << 20
    assert [r.HasField("artifact") for r in whole] == [True, False, False]
    assert whole[0].artifact.sha256 == hashlib.sha256(picture).hexdigest()
    assert whole[0].artifact.media_type == "image/png"
    assert list(ended.artifacts) == [whole[0].artifact]
    assert b"".join(r.data for r in tail) == picture[2_000_000:]
    assert [r.data for r in nothing] == [b""]


async def test_a_record_says_what_the_cache_held_beside_what_was_planned(
    settings: Settings,
) -> None:
    """The plan's bytes are in the dtype of the executors that can run it."""
    async with Planner(settings) as planner, Client(planner.address) as client:
        assumed = await client.create(config=ADAPTIVE_CONFIG, queue=True)
        async with (
            Executor(planner.address, dtype="float32") as executor,
            asking(executor),
        ):
            run = await executor.start()
            await run.report(0, 6)
            await run.complete([12345])
            ended = await client.ended(assumed.name)
            single = await client.create(config=ADAPTIVE_CONFIG, validate_only=True)
    assert list(ended.record.cache_bytes) == [12345]
    half, whole = (g.plan.estimate.cost for g in (assumed, single))
    assert (half.dtype, whole.dtype) == ("bfloat16", "float32")
    assert whole.columns[0].cache_bytes == 2 * half.columns[0].cache_bytes > 0
    assert single.plan.plan_id == assumed.plan.plan_id


async def test_where_executors_differ_the_widest_dtype_counts(settings: Settings) -> None:
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "half", dtype="bfloat16") as half,
        Executor(planner.address, "single", dtype="float32") as single,
        asking(half, single),
    ):
        created = await client.create(config=ADAPTIVE_CONFIG, validate_only=True)
    assert created.plan.estimate.cost.dtype == "float32"
