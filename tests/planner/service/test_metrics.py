"""What Prometheus is told of a planner."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from ditplan.common.metrics_port import CannotListenError
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import executor_pb2, generation_pb2, monitor_pb2, plan_pb2

from planner.dispatch.facts import Created, Ended, Stepped
from planner.service.server import Planner, Settings
from planner.store.values import Ending, Lease, State
from planner.telemetry.metrics import Metrics
from tests.planner.service.peers import ADAPTIVE_CONFIG, MODEL, Client, Executor, asking, refused
from tests.planner.service.prometheus import faults, scrape, value


@asynccontextmanager
async def _planner(settings: Settings) -> AsyncIterator[Planner]:
    async with Planner(replace(settings, metrics_listen="127.0.0.1:0")) as planner:
        yield planner


async def _scrape(planner: Planner) -> str:
    return await asyncio.to_thread(scrape, planner.metrics_address)


async def test_a_run_is_counted_from_its_creation_to_its_end(settings: Settings) -> None:
    async with (
        _planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor),
    ):
        created = await client.create(config=ADAPTIVE_CONFIG)
        run = await executor.start()
        await run.report(0, 6)
        await client.get(created.name)
        text = await _scrape(planner)
        completion = dispatch_pb2.Completion(denoise_seconds=1, total_seconds=2, reload_seconds=3)
        completion.exchanges.add(collective="all_to_all", group="ulysses", calls=4, bytes=500)
        completion.exchanges.add(collective="gossip", group="village", calls=1, bytes=1)
        await run.send(completion=completion)
        await run.receive()
        after = await _scrape(planner)

    prefix = "ditplan_planner_"
    assert value(text, f"{prefix}running_generations") == 1
    assert value(text, f"{prefix}executors", model=MODEL, placement="float32", state="busy") == 1
    assert value(text, f"{prefix}generations_created_total") == 1
    assert value(text, f"{prefix}leases_granted_total", model=MODEL) == 1
    assert value(text, f"{prefix}queue_seconds_count") == 1
    assert value(text, f"{prefix}compile_seconds_count") == 1
    steps = {"model": MODEL, "kind": "full"}
    by_plan = value(text, f"{prefix}steps_total", **steps, decided="plan")
    by_run = value(text, f"{prefix}steps_total", model=MODEL, kind="cached", decided="run")
    assert by_plan is not None
    assert by_run is not None
    assert by_plan + by_run == 6
    assert by_plan >= 2
    assert value(text, f"{prefix}step_seconds_count", **steps) == by_plan
    assert value(text, f"{prefix}residual_diff_ratio_count", kind="cached") == by_run
    assert value(text, f"{prefix}residual_diff_ratio_bucket", kind="cached", le="0.06") == by_run
    assert value(text, f"{prefix}residual_diff_ratio_bucket", kind="cached", le="0.04") == 0
    create = {"service": "ditplan.v1.GenerationService", "method": "CreateGeneration"}
    assert value(text, f"{prefix}rpc_seconds_count", **create, code="OK") == 1
    attach = {"service": "ditplan.dispatch.v1.DispatchService", "method": "RunLease"}
    assert value(text, f"{prefix}open_rpcs", **attach) == 1
    assert value(text, "process_resident_memory_bytes") is not None

    assert value(after, f"{prefix}open_rpcs", **attach) == 0
    assert value(after, f"{prefix}generations_ended_total", state="succeeded", code="OK") == 1
    assert value(after, f"{prefix}generation_attempts_sum") == 1
    assert value(after, f"{prefix}run_seconds_sum", model=MODEL) == 2
    assert value(after, f"{prefix}run_cached_ratio_sum", model=MODEL) == by_run / 6
    assert value(after, f"{prefix}reload_seconds_sum", model=MODEL) == 3
    exchanged = {"collective": "all_to_all", "group": "ulysses"}
    assert value(after, f"{prefix}exchanges_total", **exchanged) == 4
    assert value(after, f"{prefix}exchanged_bytes_total", **exchanged) == 500
    folded = {"collective": "other", "group": "other"}
    assert value(after, f"{prefix}exchanged_bytes_total", **folded) == 1
    assert faults(after) == []


async def test_a_diff_that_is_no_number_spoils_no_sum(settings: Settings) -> None:
    async with (
        _planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor),
    ):
        await client.create(config=ADAPTIVE_CONFIG)
        run = await executor.start()
        outcomes = [run.outcome(step) for step in range(6)]
        for outcome, diff in zip(outcomes[3:5], (math.nan, math.inf), strict=True):
            outcome.ops[0].residual_diff = diff
        await run.send(step_reports=dispatch_pb2.StepReports(steps=outcomes))
        await run.complete()
        text = await _scrape(planner)
    total = value(text, "ditplan_planner_residual_diff_ratio_sum", kind="cached")
    count = value(text, "ditplan_planner_residual_diff_ratio_count", kind="cached")
    assert count
    assert total == pytest.approx(0.05 * count)


async def test_losses_and_failures_are_counted_by_their_cause(settings: Settings) -> None:
    async with (
        _planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as first,
        Executor(planner.address, "exec-2") as second,
        asking(first) as [acquiring],
    ):
        created = await client.create()
        await acquiring
        # It never attaches to its lease.
        async with asking(second) as [taking]:
            run = await second.attach(await taking)
            await run.attached()
            failure = dispatch_pb2.RunFailure(code="RESOURCE_EXHAUSTED", message="no memory")
            await run.send(failure=failure)
            await client.ended(created.name)
        text = await _scrape(planner)
    ended = "ditplan_planner_generations_ended_total"
    assert value(text, "ditplan_planner_leases_lost_total", cause="expired") == 1
    assert value(text, "ditplan_planner_generations_requeued_total") == 1
    assert value(text, ended, state="failed", code="RESOURCE_EXHAUSTED") == 1
    assert value(text, "ditplan_planner_generation_attempts_sum") == 2


async def test_calls_are_counted_by_the_status_that_they_end_with(settings: Settings) -> None:
    async with _planner(settings) as planner, Client(planner.address) as client:
        await refused(client.generations.GetGeneration(generation_pb2.GetGenerationRequest()))
        for name in ("One", "Two"):
            call = client.channel.unary_unary(f"/ditplan.v1.GenerationService/{name}")
            assert (await refused(call(b""))).code is grpc.StatusCode.UNIMPLEMENTED
        queued = await client.create(queue=True)
        watch = generation_pb2.WatchGenerationRequest(name=queued.name)
        await refused(client.generations.WatchGeneration(watch, timeout=0.3))
        call = client.generations.WatchGeneration(watch)
        await call.read()
        call.cancel()
        await asyncio.sleep(0.2)
        text = await _scrape(planner)
    count = "ditplan_planner_rpc_seconds_count"
    get = {"service": "ditplan.v1.GenerationService", "method": "GetGeneration"}
    assert value(text, count, **get, code="INVALID_ARGUMENT") == 1
    unknown = {"service": "unknown", "method": "unknown"}
    assert value(text, count, **unknown, code="UNIMPLEMENTED") == 2
    watched = get | {"method": "WatchGeneration"}
    assert value(text, count, **watched, code="DEADLINE_EXCEEDED") == 1
    assert value(text, count, **watched, code="CANCELLED") == 1
    assert value(text, "ditplan_planner_open_rpcs", **watched) == 0
    assert "Two" not in text


async def test_a_taken_address_of_metrics_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        planner = Planner(replace(settings, metrics_listen=address))
        with pytest.raises(CannotListenError, match=address):
            async with planner:
                pass


def _lease(model: str) -> Lease:
    executor = executor_pb2.Executor(name="exec-1", model=model)
    return Lease(
        generation="g",
        epoch=1,
        executor=executor,
        expires_at=0.0,
        cancel_code=None,
        cancel_reason=None,
        requirement="key",
        plan_id="plan",
        steps_done=0,
        step_count=1,
        traceparent="",
    )


def _program() -> plan_pb2.Program:
    return plan_pb2.Program(
        ops=[plan_pb2.Op(kind=plan_pb2.OP_KIND_ADAPTIVE)],
        steps=[plan_pb2.Step(ops=[1, 1])],
    )


def _outcome() -> generation_pb2.StepOutcome:
    op = generation_pb2.OpOutcome(kind=plan_pb2.OP_KIND_CACHED, residual_diff=0.1)
    return generation_pb2.StepOutcome(step=0, ops=[op, op], milliseconds=20)


def test_models_beyond_a_bound_are_told_apart_no_more() -> None:
    metrics = Metrics(monitor_pb2.WatchStatusResponse)
    for number in range(1000):
        metrics.hear(Stepped(_lease(f"model-{number}"), _program(), [_outcome()]))
        metrics.hear(Created(f"{number}", "plan", f"model-{number}"))
        metrics.hear(Ended(f"{number}", _failed(), None))
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    models = {sample.labels["model"] for sample in samples if "model" in sample.labels}
    assert len(models) == 65
    assert "other" in models
    assert len(samples) < 3000
    labels = {value for sample in samples for value in sample.labels.values()}
    assert not labels & {"0", "999", "plan"}


def _failed() -> Ending:
    return Ending(State.FAILED, generation_pb2.Failure(code="UNAVAILABLE", message="gone"))


def test_a_reported_step_costs_microseconds() -> None:
    metrics = Metrics(monitor_pb2.WatchStatusResponse)
    fact = Stepped(_lease(MODEL), _program(), [_outcome()])
    best = min(_seconds(metrics, fact) for _ in range(5))
    assert best < 50e-6, f"{best * 1e6:.1f} us"


def _seconds(metrics: Metrics, fact: Stepped) -> float:
    began = time.perf_counter()
    for _ in range(500):
        metrics.hear(fact)
    return (time.perf_counter() - began) / 500
