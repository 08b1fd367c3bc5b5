"""Every refusal that there is: its status, exactly one ErrorInfo, and what else it promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, planner_pb2

from planner.errors import ErrorReason
from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    MODEL,
    Client,
    Executor,
    Refusal,
    create_request,
    refused,
)

UNKNOWN = "generations/0123456789abcdef"
# Of tokens, streams and the end, of which other tests tell; and what no caller brings about.
ELSEWHERE = {
    ErrorReason.CREDENTIALS_MISSING,
    ErrorReason.CREDENTIALS_UNKNOWN,
    ErrorReason.CREDENTIALS_EXPIRED,
    ErrorReason.CREDENTIALS_REVOKED,
    ErrorReason.WRONG_ROLE,
    ErrorReason.TOO_MANY_STREAMS,
    ErrorReason.STREAM_STALLED,
    ErrorReason.STOPPING,
    ErrorReason.DISPATCH_UNREACHABLE,
    ErrorReason.ANSWER_FULL,
    ErrorReason.INTERNAL,
}


@dataclass(frozen=True)
class World:
    """One planner with little room, its client, and an executor that is not connected yet."""

    planner: Planner
    client: Client
    executor: Executor

    async def made(self) -> str:
        created = await self.client.create(queue=True)
        await self.executor.serve_one()
        return created.name

    def create(self, request: generation_pb2.CreateGenerationRequest) -> Awaitable[object]:
        call: Awaitable[object] = self.client.generations.CreateGeneration(request)
        return call


async def malformed(world: World) -> Refusal:
    call = world.client.channel.unary_unary("/ditplan.v1.GenerationService/GetGeneration")
    return await refused(call(b"\xff"))


async def bad_request(world: World) -> Refusal:
    request = create_request("\n", queue=True, prompt="", num_inference_steps=None)
    request.priority = 101
    request.deadline.seconds = 1
    return await refused(world.create(request))


async def bad_config(world: World) -> Refusal:
    config = "cache_config:\n  max_warmup_step: 2\n  residual_diff_threshold: high\n"
    return await refused(world.create(create_request(queue=True, config=config)))


async def bad_list(world: World) -> Refusal:
    request = generation_pb2.ListGenerationsRequest(states=[99], page_token="x")
    return await refused(world.client.generations.ListGenerations(request))


async def bad_sequence(world: World) -> Refusal:
    created = await world.client.create(queue=True)
    request = generation_pb2.WatchGenerationRequest(name=created.name, after_sequence=99)
    return await refused(world.client.generations.WatchGeneration(request))


async def unknown_model(world: World) -> Refusal:
    return await refused(world.create(create_request(queue=True, model="unheard-of")))


async def unknown_generation(world: World) -> Refusal:
    request = generation_pb2.GetGenerationRequest(name=UNKNOWN)
    return await refused(world.client.generations.GetGeneration(request))


async def unknown_artifact(world: World) -> Refusal:
    request = generation_pb2.ReadArtifactRequest(name=f"{UNKNOWN}/artifacts/image.png")
    return await refused(world.client.generations.ReadArtifact(request))


async def no_executor(world: World) -> Refusal:
    return await refused(world.create(create_request()))


async def reused_id(world: World) -> Refusal:
    await world.client.create(request_id="mine", queue=True)
    return await refused(world.create(create_request("mine", queue=True, prompt="another")))


async def full_queue(world: World) -> Refusal:
    for _ in range(3):
        await world.client.create(queue=True)
    return await refused(world.create(create_request(queue=True)))


async def full_storage(world: World) -> Refusal:
    world.planner._retention._least_free = 1 << 60
    return await refused(world.create(create_request(queue=True)))


async def name_in_use(world: World) -> Refusal:
    await world.client.create(queue=True)
    await world.executor.start()
    request = dispatch_pb2.AcquireLeaseRequest(executor=world.executor.message)
    return await refused(world.client.dispatch.AcquireLease(request))


async def large_artifact(world: World) -> Refusal:
    await world.client.create(queue=True)
    run = await world.executor.start()
    return await refused(world.executor.upload(run.lease, "image.png", bytes(101)))


async def offset(world: World) -> Refusal:
    name = f"{await world.made()}/artifacts/image.png"
    request = generation_pb2.ReadArtifactRequest(name=name, offset=99)
    return await refused(world.client.generations.ReadArtifact(request))


async def stale_lease(world: World) -> Refusal:
    lease = dispatch_pb2.Lease(generation=UNKNOWN, epoch=1)
    return await (await world.executor.attach(lease)).refusal()


async def bad_report(world: World) -> Refusal:
    await world.client.create(queue=True)
    run = await world.executor.start()
    await run.send(step_reports=dispatch_pb2.StepReports(steps=[run.outcome(3)]))
    return await run.refusal()


async def bad_executor(world: World) -> Refusal:
    request = dispatch_pb2.AcquireLeaseRequest(wait_seconds=-1)
    return await refused(world.client.dispatch.AcquireLease(request))


async def bad_compile(world: World) -> Refusal:
    request = planner_pb2.CompilePlanRequest(model=MODEL, config="a: [")
    return await refused(world.client.planner.CompilePlan(request))


INVALID = grpc.StatusCode.INVALID_ARGUMENT
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
Case = tuple[Callable[[World], Awaitable[Refusal]], grpc.StatusCode, ErrorReason, set[str], bool]
# What is refused, its code and reason, the fields at fault, and whether it says when to retry.
CASES: list[Case] = [
    (malformed, INVALID, ErrorReason.INVALID_REQUEST, {""}, False),
    (
        bad_request,
        INVALID,
        ErrorReason.INVALID_REQUEST,
        {"request_id", "spec.prompt", "priority", "deadline"},
        False,
    ),
    (
        bad_config,
        INVALID,
        ErrorReason.INVALID_CONFIG,
        {"cache_config.max_warmup_step", "cache_config.residual_diff_threshold"},
        False,
    ),
    (bad_compile, INVALID, ErrorReason.INVALID_CONFIG, {"config"}, False),
    (bad_list, INVALID, ErrorReason.INVALID_REQUEST, {"states[0]", "page_token"}, False),
    (bad_sequence, INVALID, ErrorReason.INVALID_REQUEST, {"after_sequence"}, False),
    (
        bad_executor,
        INVALID,
        ErrorReason.INVALID_REQUEST,
        {"executor.name", "executor.model", "executor.world_size", "wait_seconds"},
        False,
    ),
    (unknown_model, INVALID, ErrorReason.UNKNOWN_MODEL, {"spec.model"}, False),
    (unknown_generation, NOT_FOUND, ErrorReason.UNKNOWN_GENERATION, set(), False),
    (unknown_artifact, NOT_FOUND, ErrorReason.UNKNOWN_ARTIFACT, set(), False),
    (
        no_executor,
        grpc.StatusCode.FAILED_PRECONDITION,
        ErrorReason.NO_MATCHING_EXECUTOR,
        set(),
        False,
    ),
    (reused_id, grpc.StatusCode.ALREADY_EXISTS, ErrorReason.REQUEST_ID_REUSED, set(), False),
    (
        name_in_use,
        grpc.StatusCode.ALREADY_EXISTS,
        ErrorReason.EXECUTOR_NAME_IN_USE,
        set(),
        False,
    ),
    (full_queue, FULL, ErrorReason.QUEUE_FULL, set(), True),
    (full_storage, FULL, ErrorReason.STORAGE_FULL, set(), True),
    (large_artifact, FULL, ErrorReason.ARTIFACTS_TOO_LARGE, set(), False),
    (
        offset,
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorReason.OFFSET_OUT_OF_RANGE,
        set(),
        False,
    ),
    (stale_lease, grpc.StatusCode.ABORTED, ErrorReason.STALE_LEASE, set(), False),
    (bad_report, INVALID, ErrorReason.INVALID_REPORT, {""}, False),
]


def test_no_reason_is_left_out() -> None:
    assert {reason for _, _, reason, _, _ in CASES} == set(ErrorReason) - ELSEWHERE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
async def test_a_refusal_has_one_reason_and_all_of_its_faults(
    settings: Settings, case: Case
) -> None:
    refuse, code, reason, fields, retry = case
    limits = replace(settings.limits, queue_length=3, artifact_bytes=100)
    async with (
        Planner(replace(settings, limits=limits)) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
    ):
        refusal = await refuse(World(planner, client, executor))
    assert refusal.code == code
    assert [(info.reason, info.domain) for info in refusal.infos] == [(reason.value, "ditplan")]
    assert set(refusal.violations) == fields
    assert (refusal.retry_seconds is not None) == retry
    assert refusal.message
