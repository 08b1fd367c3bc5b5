"""Peers that mean harm, or know no better: every call gets a deliberate status."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, monitor_pb2, planner_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from planner.service.server import Planner, Settings
from tests.planner.service.credentials import token, with_tokens
from tests.planner.service.peers import Client, Executor, asking, create_request, refused
from tests.planner.service.planners import connected
from tests.planner.service.test_process import serving
from tests.planner.service.test_watch import resident_bytes

METHODS: list[MethodDescriptor] = [
    method
    for file in (planner_pb2, generation_pb2, dispatch_pb2, monitor_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
BUGS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
SECONDS_PER_CALL = 2.0
ODD_TEXTS = (
    "",
    "x",
    "\0",
    "\x1b[31m",
    "../../etc/passwd",
    "generations/0123456789abcdef",
    "generations/0123456789abcdef/artifacts/image.png",
    "black-forest-labs/FLUX.1-dev",
    "é" * 100,
    "x" * 70_000,
    "{",
    "a: &a [*a]",
    "cache_config: {max_warmup_steps: -1}",
    "!!python/object:os.system x",
    "[" * 20_000,
)
ODD_NUMBERS = (0, 1, 2, 255, 2**31 - 1, 2**31, 2**32 - 1)


async def status_of(client: Client, method: MethodDescriptor, payloads: list[bytes]) -> Any:
    """What a call with these messages ends with; None where the client did not hear."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    streams_up, streams_down = method.client_streaming, method.server_streaming

    async def requests() -> AsyncIterator[bytes]:
        for payload in payloads:
            yield payload

    if streams_up:
        make = client.channel.stream_stream if streams_down else client.channel.stream_unary
        call: Any = make(path)(requests(), timeout=SECONDS_PER_CALL)
    else:
        make_one = client.channel.unary_stream if streams_down else client.channel.unary_unary
        call = make_one(path)(payloads[0], timeout=SECONDS_PER_CALL)
    try:
        if streams_down:
            async for _ in call:
                call.cancel()
        else:
            await call
    except asyncio.CancelledError:
        return grpc.StatusCode.CANCELLED
    except grpc.aio.AioRpcError as error:
        # The client itself makes this INTERNAL up where it writes to a stream that has ended.
        if "execute_batch" in (error.debug_error_string() or ""):
            return None
        return error.code()
    return grpc.StatusCode.OK


def odd(message: Message, dice: random.Random, depth: int = 0) -> Message:
    """Fills a message with values of the right types and no sense."""
    for field in message.DESCRIPTOR.fields:
        if dice.random() < 0.4:
            continue
        count = dice.choice((1, 1, 3)) if field.is_repeated else 1
        for _ in range(count):
            _set(message, field, dice, depth)
    return message


def _set(message: Message, field: FieldDescriptor, dice: random.Random, depth: int) -> None:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        if depth < 4:
            inner = getattr(message, field.name)
            odd(inner.add() if field.is_repeated else inner, dice, depth + 1)
        return
    value: Any
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = dice.choice(ODD_TEXTS)
            value = text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            value = dice.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE:
            value = dice.choice((0.0, -1.0, 0.1, float("nan"), float("inf"), 1e308))
        case FieldDescriptor.CPPTYPE_ENUM:
            value = dice.choice((0, 1, 3, 99))
        case FieldDescriptor.CPPTYPE_INT32:
            value = dice.choice((0, 1, -1, 101, 2**31 - 1, -(2**31)))
        case FieldDescriptor.CPPTYPE_INT64:
            value = dice.choice((0, 1, -1, 2**32, 2**62, 2**63 - 1, -(2**63)))
        case FieldDescriptor.CPPTYPE_UINT64:
            value = dice.choice((*ODD_NUMBERS, 2**63, 2**64 - 1))
        case _:
            value = dice.choice(ODD_NUMBERS)
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_no_message_is_answered_with_a_bug(
    settings: Settings, method: MethodDescriptor
) -> None:
    dice = random.Random(f"{method.full_name}")
    kind = GetMessageClass(method.input_type)
    payloads = [[b""], [b"\xff" * 50], [b"\x0a\xff\xff\xff\xff\x0f"]]
    payloads += [[dice.randbytes(dice.randrange(200))] for _ in range(20)]
    payloads += [
        [odd(kind(), dice).SerializeToString() for _ in range(dice.choice((1, 2)))]
        for _ in range(40)
    ]
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address) as executor,
        asking(executor),
    ):
        for messages in payloads:
            status = await status_of(client, method, messages)
            assert status not in BUGS, (status, messages)
        listed = await client.generations.ListGenerations(generation_pb2.ListGenerationsRequest())
        assert len(listed.generations) <= len(payloads), "it still serves"


async def test_messages_in_the_wrong_order_end_only_their_stream(settings: Settings) -> None:
    attach = dispatch_pb2.Attach()
    async with connected(settings) as (client, executor):
        created = await client.create()
        lease = await executor.leased()
        for first in (
            dispatch_pb2.RunLeaseRequest(),
            dispatch_pb2.RunLeaseRequest(completion=dispatch_pb2.Completion()),
            dispatch_pb2.RunLeaseRequest(attach=attach),
        ):
            call = client.dispatch.RunLease()
            await call.write(first)
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call.read()
            assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        for second in ({"attach": attach}, {}):
            run = await executor.attach(lease)
            await run.attached()
            await run.send(**second)
            assert (await run.refusal()).code == grpc.StatusCode.INVALID_ARGUMENT
        run = await executor.attach(lease)
        await run.attached()
        await run.report(0, 6)
        await run.complete()
        ended = await client.ended(created.name)
    assert ended.state == generation_pb2.GENERATION_STATE_SUCCEEDED


async def test_large_requests_that_are_refused_leave_no_memory_behind(tmp_path: Path) -> None:
    large = planner_pb2.CompilePlanRequest(config="#" * (7 << 20)).SerializeToString()
    with serving(tmp_path) as (process, address):
        async with Client(address) as client:
            call = client.channel.unary_unary("/ditplan.v1.PlannerService/CompilePlan")
            await refused(call(large))
            before = resident_bytes(process.pid)
            for _ in range(40):
                assert (await refused(call(large))).code is grpc.StatusCode.INVALID_ARGUMENT
            grown = resident_bytes(process.pid) - before
    print(f"{grown >> 20} MiB")
    assert grown < 100 << 20


async def test_a_message_above_the_limit_is_refused_with_its_size(
    settings: Settings, tmp_path: Path
) -> None:
    """Such as a photograph that is too large, also where callers are asked who they are."""
    images = [generation_pb2.InputImage(data=bytes(9 << 20))]
    for served, shown in ((settings, ""), (with_tokens(settings, tmp_path), token("anna"))):
        async with Planner(served) as planner, Client(planner.address, shown) as client:
            request = create_request(images=images)
            refusal = await refused(client.generations.CreateGeneration(request))
            assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
            assert [info.reason for info in refusal.infos] == ["INVALID_REQUEST"]
            assert refusal.message.endswith(f"{request.ByteSize()} bytes, more than {8 << 20}")


async def test_what_grpc_itself_refuses_comes_as_the_manual_says(settings: Settings) -> None:
    request = planner_pb2.CompilePlanRequest(model="x", config="#" * (17 << 20))
    async with Planner(settings) as planner, Client(planner.address) as client:
        too_large = await refused(client.planner.CompilePlan(request))
        method = client.channel.unary_unary("/ditplan.v1.PlannerService/None")
        unknown = await refused(method(b""))
    assert too_large.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in too_large.message
    assert (unknown.code, unknown.message) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "Method not found!",
    )
    assert too_large.infos == unknown.infos == []
