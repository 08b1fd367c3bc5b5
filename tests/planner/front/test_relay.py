"""What reaches the other side of a replica, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from ditplan.common.tracing import Tracing

from planner.settings import Settings
from planner.telemetry.traces import Traces
from tests.planner.front.fronts import answering, front_of, until
from tests.planner.service.peers import Client, refused

WATCH = "/ditplan.v1.GenerationService/WatchGeneration"
GET = "/ditplan.v1.GenerationService/GetGeneration"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KIB = 1 << 10


async def test_bytes_and_metadata_pass_in_both_directions(settings: Settings) -> None:
    seen: dict[str, Any] = {}

    async def echo(request: bytes, context: Any) -> AsyncIterator[bytes]:
        seen.update(context.invocation_metadata())
        seen["left"] = context.time_remaining()
        await context.send_initial_metadata((("head", "1"),))
        context.set_trailing_metadata((("tail-bin", b"\0\xff"),))
        yield request
        if request == b"stream":
            yield b"second"

    async with (
        answering(echo) as address,
        front_of(settings, address) as front,
        Client(front.address) as client,
    ):
        metadata = (
            ("traceparent", TRACEPARENT),
            ("x-request-id", "mine"),
            ("more-bin", b"\0\xfe"),
            ("authorization", "Bearer of-the-client-only"),
            ("ditplan-keeps-work", "true"),
        )
        call = client.channel.unary_stream(WATCH)(b"stream", metadata=metadata, timeout=7)
        assert [message async for message in call] == [b"stream", b"second"]
        assert dict(await call.initial_metadata())["head"] == "1"
        assert dict(await call.trailing_metadata())["tail-bin"] == b"\0\xff"
        assert seen["traceparent"] == TRACEPARENT
        assert seen["x-request-id"] == "mine"
        assert seen["more-bin"] == b"\0\xfe"
        # The server counts from the arrival by a clock of its own.
        assert 6 < seen["left"] < 7.1
        assert not {"authorization", "ditplan-keeps-work", "ditplan-on-behalf-of"} & set(seen)
        one = client.channel.unary_unary(GET)(b"one", metadata=(("traceparent", TRACEPARENT),))
        assert await one == b"one"
        assert dict(await one.initial_metadata())["head"] == "1"
        assert dict(await one.trailing_metadata())["tail-bin"] == b"\0\xff"
        # No deadline of the replica's own.
        assert seen["left"] is None or seen["left"] > 1e6


async def test_a_status_passes_as_it_is(settings: Settings) -> None:
    details = (("grpc-status-details-bin", b"\x08\x0a\x12\x04gone"), ("other", "kept"))

    async def refuse(request: bytes, context: Any) -> AsyncIterator[bytes]:
        if request == b"late":
            yield b"first"
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone, for now: ü", details)

    async with (
        answering(refuse) as address,
        front_of(settings, address) as front,
        Client(front.address) as client,
    ):
        for call in (
            client.channel.unary_unary(GET)(b""),
            client.channel.unary_stream(WATCH)(b""),
            client.channel.unary_stream(WATCH)(b"late"),
        ):
            refusal = await refused(call)
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            assert refusal.message == "gone, for now: ü"
            assert set(details) <= set(await call.trailing_metadata())


@pytest.mark.parametrize("code", ["UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED"])
async def test_what_comes_without_details_is_said_with_when_to_come_again(
    settings: Settings, code: str
) -> None:
    async def break_off(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode[code], "stream reset")
        yield b""

    async with (
        answering(break_off) as address,
        front_of(settings, address) as front,
        Client(front.address) as client,
    ):
        refusal = await refused(client.channel.unary_stream(WATCH)(b""))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert [info.reason for info in refusal.infos] == ["DISPATCH_UNREACHABLE"]
        assert refusal.retry_seconds
        assert "stream reset" in refusal.message


async def test_an_end_of_the_caller_reaches_the_other_side(settings: Settings) -> None:
    ended = []

    async def wait(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"begun"
            await asyncio.sleep(30)
        finally:
            ended.append(request)

    async with (
        answering(wait) as address,
        front_of(settings, address) as front,
        Client(front.address) as client,
    ):
        call = client.channel.unary_stream(WATCH)(b"cancelled")
        await call.read()
        call.cancel()
        await until(lambda: ended == [b"cancelled"])
        late = await refused(client.channel.unary_stream(WATCH)(b"late", timeout=0.3))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: ended == [b"cancelled", b"late"])
        late = await refused(client.channel.unary_unary(GET)(b"one", timeout=0.3))
        assert late.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: ended[2:] == [b"one"])


async def test_a_reader_that_waits_holds_up_the_writer(settings: Settings) -> None:
    written = 0
    total = 2000

    async def write(request: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal written
        for number in range(total):
            yield number.to_bytes(4, "big") + bytes(64 * KIB)
            written += 1

    async with (
        answering(write) as address,
        front_of(settings, address) as front,
        Client(front.address) as client,
    ):
        call = client.channel.unary_stream(WATCH)(b"")
        messages = aiter(call)
        first = await anext(messages)
        await asyncio.sleep(1.0)
        # On the way, in the windows and socket buffers of two connections; 125 MiB in all.
        on_the_way = written
        assert on_the_way * 64 < 24 * KIB, f"{on_the_way} messages are on their way"
        await asyncio.sleep(0.5)
        assert written == on_the_way
        rest = [int.from_bytes(message[:4], "big") async for message in messages]
        assert first[:4] == bytes(4)
        assert rest == list(range(1, total))


async def test_one_stream_that_waits_does_not_hold_up_others(settings: Settings) -> None:
    async def write(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(64 * KIB)

    async with (
        answering(write) as address,
        front_of(settings, address) as front,
        Client(front.address) as slow,
        Client(front.address) as quick,
    ):
        calls = [slow.channel.unary_stream(WATCH)(b"") for _ in range(20)]
        for call in calls:
            await call.read()
        count = 0
        async for _ in quick.channel.unary_stream(WATCH)(b"", timeout=5):
            count += 1
        assert count == 200


async def test_a_replica_that_traces_is_the_parent_of_what_it_calls() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider

    from planner.front.headers import forwarded
    from planner.telemetry.calls import Call

    traces = Traces(Tracing(TracerProvider()))
    received = (("traceparent", TRACEPARENT), ("x", "y"))
    with traces.call(Call("ditplan.v1.GenerationService", "GetGeneration", TRACEPARENT)):
        pairs = forwarded(
            received,
            caller="",
            credentials=(),
            traceparent=traces.calls_traceparent(),
            keeps_work=False,
        )
    [parent] = [value for key, value in pairs if key == "traceparent"]
    assert parent != TRACEPARENT
    assert str(parent)[:35] == TRACEPARENT[:35]
