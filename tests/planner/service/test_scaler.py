"""What KEDA is told, over a socket of its own."""

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
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.keda import externalscaler_pb2 as keda
from ditplan.keda.externalscaler_pb2_grpc import ExternalScalerStub
from ditplan.v1 import generation_pb2

from planner.listening.sockets import ListenError
from planner.service.server import Planner, Settings
from tests.planner.service.peers import MODEL, Client, Executor, asking, refused
from tests.planner.service.prometheus import faults, scrape, value

OTHER = "black-forest-labs/FLUX.1-schnell"
METRIC = "queued-predicted-seconds"
# What KEDA sends of itself with every call.
ADDRESS = {"scalerAddress": "dispatch:7332"}


class Keda:
    """Asks as KEDA does."""

    def __init__(self, address: str) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self.channel = grpc.aio.insecure_channel(address, options)
        self.stub: ExternalScalerStub = ExternalScalerStub(self.channel)

    @staticmethod
    def reference(**metadata: str) -> keda.ScaledObjectRef:
        return keda.ScaledObjectRef(
            name="executor", namespace="ditplan", scalerMetadata=ADDRESS | metadata
        )

    async def active(self, **metadata: str) -> bool:
        answer = await self.stub.IsActive(self.reference(**metadata))
        return bool(answer.result)

    async def metric(self, **metadata: str) -> float:
        request = keda.GetMetricsRequest(
            scaledObjectRef=self.reference(**metadata), metricName=METRIC
        )
        [found] = (await self.stub.GetMetrics(request)).metricValues
        assert found.metricName == METRIC
        assert found.metricValue == math.ceil(found.metricValueFloat)
        return float(found.metricValueFloat)


@asynccontextmanager
async def _planner(settings: Settings) -> AsyncIterator[tuple[Planner, Client, Keda]]:
    changed = replace(settings, scaler_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0")
    async with Planner(changed) as planner, Client(planner.address) as client:
        asker = Keda(planner.scaler_address)
        try:
            yield planner, client, asker
        finally:
            await asker.channel.close()


async def _completed(executor: Executor, lease: dispatch_pb2.Lease, seconds: float) -> None:
    run = await executor.attach(lease)
    await run.attached()
    await run.report(0, len(run.steps))
    completion = dispatch_pb2.Completion(denoise_seconds=seconds, total_seconds=seconds)
    await run.send(completion=completion)
    await run.receive()


async def test_the_numbers_follow_work_from_its_creation_to_its_end(settings: Settings) -> None:
    async with (
        _planner(settings) as (planner, client, asker),
        Executor(planner.address) as executor,
    ):
        assert not await asker.active()
        assert await asker.metric() == 0
        async with asking(executor) as [acquiring]:
            await client.create()
            await _completed(executor, await acquiring, 40.0)
        assert not await asker.active()

        for _ in range(3):
            await client.create(queue=True)
        assert await asker.active()
        assert await asker.metric() == pytest.approx(120)
        assert await asker.metric(targetSeconds="30") == pytest.approx(90), (
            "a run is one executor's"
        )
        # Half of the steps take half as long.
        await client.create(queue=True, num_inference_steps=3)
        assert await asker.metric() == pytest.approx(140)

        run = await executor.start()
        await run.report(0, 3)
        await asyncio.sleep(0.6)
        assert await asker.metric() == pytest.approx(20 + 100)
        gauges = await asyncio.to_thread(scrape, planner.metrics_address)
        assert value(
            gauges, "ditplan_planner_queued_predicted_seconds", model=MODEL
        ) == pytest.approx(100)
        assert value(
            gauges, "ditplan_planner_running_predicted_seconds", model=MODEL
        ) == pytest.approx(20)
        assert faults(gauges) == []
        # What runs holds its executor, however little is left of it.
        assert await asker.metric(targetSeconds="1000") == 1000


async def test_what_was_learned_outlives_the_planner(settings: Settings) -> None:
    async with _planner(settings) as (planner, client, _), Executor(planner.address) as executor:
        async with asking(executor) as [acquiring]:
            await client.create()
            await _completed(executor, await acquiring, 40.0)
        await client.create(queue=True)
    async with _planner(settings) as (_, _, asker):
        assert await asker.active()
        assert await asker.metric() == pytest.approx(40)


async def test_each_model_is_asked_for_alone(settings: Settings) -> None:
    async with _planner(settings) as (_, client, asker):
        await client.create(queue=True, model=OTHER)
        assert await asker.active()
        assert await asker.active(model=OTHER)
        assert not await asker.active(model=MODEL)
        assert await asker.metric(model=MODEL) == 0
        assert await asker.metric(model=OTHER) == await asker.metric() > 0


async def test_a_stream_is_told_of_every_change_within_a_second(settings: Settings) -> None:
    async with _planner(settings) as (_, client, asker):
        stream = asker.stub.StreamIsActive(asker.reference(model=MODEL))
        assert not (await stream.read()).result
        await client.create(queue=True, model=OTHER)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        created = await client.create(queue=True)
        assert (await stream.read()).result
        assert time.monotonic() - began < 1
        await client.generations.CancelGeneration(
            generation_pb2.CancelGenerationRequest(name=created.name)
        )
        assert not (await stream.read()).result


async def test_open_streams_end_with_the_planner(settings: Settings) -> None:
    async with Planner(replace(settings, scaler_listen="127.0.0.1:0")) as planner:
        asker = Keda(planner.scaler_address)
        stream = asker.stub.StreamIsActive(asker.reference())
        await stream.read()
    refusal = await refused(stream.read())
    await asker.channel.close()
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.infos[0].reason == "STOPPING"


async def test_the_target_is_the_triggers_or_a_minute(settings: Settings) -> None:
    async with _planner(settings) as (_, _, asker):
        for metadata, target in (({}, 60), ({"targetSeconds": "90"}, 90)):
            answer = await asker.stub.GetMetricSpec(asker.reference(**metadata))
            [spec] = answer.metricSpecs
            assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (
                METRIC,
                target,
                target,
            )


@pytest.mark.parametrize(
    "given", ["0", "-1", "1.5", "86401", "1e3", "", "²", "a minute", "9" * 60_000]
)
async def test_a_target_that_is_none_is_refused(settings: Settings, given: str) -> None:
    async with _planner(settings) as (_, _, asker):
        refusal = await refused(asker.stub.GetMetricSpec(asker.reference(targetSeconds=given)))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "from 1 to 86400" in refusal.violations["scalerMetadata.targetSeconds"]
        request = keda.GetMetricsRequest(
            scaledObjectRef=asker.reference(targetSeconds=given), metricName=METRIC
        )
        refusal = await refused(asker.stub.GetMetrics(request))
        assert set(refusal.violations) == {"scaledObjectRef.scalerMetadata.targetSeconds"}


async def test_metadata_and_metrics_that_nobody_knows_are_refused(settings: Settings) -> None:
    async with _planner(settings) as (_, _, asker):
        refusal = await refused(asker.stub.IsActive(asker.reference(targetSecond="5")))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "model and targetSeconds are" in refusal.violations["scalerMetadata.targetSecond"]
        many = {f"{number:03}" * 200: "x" for number in range(100)}
        refusal = await refused(asker.stub.IsActive(asker.reference(**many)))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(refusal.violations) == 10
        request = keda.GetMetricsRequest(scaledObjectRef=asker.reference(), metricName="queue")
        refusal = await refused(asker.stub.GetMetrics(request))
        assert set(refusal.violations) == {"metricName"}


async def test_what_a_peer_may_take_is_bounded(settings: Settings) -> None:
    settings = replace(settings, timing=replace(settings.timing, stalled_seconds=0.5))
    async with _planner(settings) as (planner, _, asker):
        large = asker.reference(model="x" * 70_000)
        assert (await refused(asker.stub.IsActive(large))).code is grpc.StatusCode.INVALID_ARGUMENT
        silent = asker.channel.stream_unary("/externalscaler.ExternalScaler/IsActive")()
        assert (await refused(silent)).code is grpc.StatusCode.UNAVAILABLE

        streams = [asker.stub.StreamIsActive(asker.reference()) for _ in range(64)]
        for stream in streams:
            await stream.read()
        another = Keda(planner.scaler_address)
        refusal = await refused(another.stub.StreamIsActive(another.reference()))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not await another.active()
        await another.channel.close()


async def test_nothing_else_is_answered_there(settings: Settings) -> None:
    async with _planner(settings) as (planner, _, _), Client(planner.scaler_address) as client:
        code = grpc.StatusCode.UNIMPLEMENTED
        assert (await refused(client.get("generations/x"))).code is code
        executor = Executor(planner.scaler_address)
        async with executor:
            assert (await refused(executor.acquire())).code is code


async def test_a_taken_address_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=address):
            async with Planner(replace(settings, scaler_listen=address)):
                pass
