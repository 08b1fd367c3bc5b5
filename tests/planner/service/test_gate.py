"""Who gets in, over real sockets: with which token, to which services, to whose work."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from ditplan.dispatch.v1 import dispatch_pb2, front_pb2
from ditplan.v1 import generation_pb2, monitor_pb2, planner_pb2
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from planner.access import gate
from planner.access.gate import ROLES, Gate
from planner.errors import CallRefused
from planner.listening.boundary import Boundary
from planner.service.server import Planner, Settings
from planner.settings import Limits
from planner.telemetry.logs import configure_logs
from tests.planner.service.credentials import TOKENS, entry, token, with_tokens
from tests.planner.service.peers import (
    Client,
    Executor,
    Refusal,
    asking,
    create_request,
    refused,
    spec,
)

METHODS: list[MethodDescriptor] = [
    method
    for file in (planner_pb2, generation_pb2, dispatch_pb2, front_pb2, monitor_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
MAY_CALL = {
    "ditplan.v1.PlannerService": {"anna", "root"},
    "ditplan.v1.GenerationService": {"anna", "root"},
    "ditplan.v1.MonitorService": {"root"},
    "ditplan.dispatch.v1.DispatchService": {"ranks"},
    "ditplan.dispatch.v1.FrontService": {"front"},
}
GARBAGE = b"\xff\xff\xff"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def guarded(settings: Settings, tmp_path: Path) -> Settings:
    return with_tokens(settings, tmp_path)


async def answer(client: Client, method: MethodDescriptor, **options: Any) -> Refusal:
    """What a call with a message that cannot be parsed is refused with."""

    async def requests() -> AsyncIterator[bytes]:
        yield GARBAGE

    up = "stream" if method.client_streaming else "unary"
    down = "stream" if method.server_streaming else "unary"
    make = getattr(client.channel, f"{up}_{down}")
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = requests() if method.client_streaming else GARBAGE
    return await refused(make(path)(request, timeout=5, **options))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_call_is_for_its_roles_only(
    guarded: Settings, method: MethodDescriptor
) -> None:
    allowed = MAY_CALL[method.containing_service.full_name]
    async with Planner(guarded) as planner:
        for name in ("anna", "ranks", "root", "front"):
            async with Client(planner.address, token(name)) as client:
                refusal = await answer(client, method)
            if name in allowed:
                # The message itself was looked at: this one had got in.
                assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
                continue
            assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
            assert [i.reason for i in refusal.infos] == ["WRONG_ROLE"]
            assert name in refusal.message


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_nobody_else_gets_as_far_as_the_message(
    guarded: Settings, method: MethodDescriptor
) -> None:
    ways: list[tuple[tuple[tuple[str, str], ...], str]] = [
        ((), "CREDENTIALS_MISSING"),
        ((("authorization", f"Bearer {token('nobody')}"),), "CREDENTIALS_UNKNOWN"),
        ((("authorization", f"Bearer {token('late')}"),), "CREDENTIALS_EXPIRED"),
    ]
    async with Planner(guarded) as planner, Client(planner.address) as client:
        for metadata, reason in ways:
            refusal = await answer(client, method, metadata=metadata)
            assert refusal.code is UNAUTHENTICATED
            assert [(i.reason, i.domain) for i in refusal.infos] == [(reason, "ditplan")]


async def test_a_refusal_is_logged_with_who_was_refused_and_without_the_token(
    guarded: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logs()
    try:
        async with Planner(guarded) as planner:
            for name in ("ranks", "nobody"):
                async with Client(planner.address, token(name)) as client:
                    await answer(client, METHODS[0])
    finally:
        structlog.reset_defaults()
    text = capfd.readouterr().err
    wrong, unknown = [
        entry
        for entry in map(json.loads, filter(None, text.splitlines()))
        if entry["event"] == "call_refused"
    ]
    assert (wrong["reason"], wrong["caller"]) == ("WRONG_ROLE", "ranks")
    assert unknown["reason"] == "CREDENTIALS_UNKNOWN"
    assert unknown["peer"].startswith("ipv4:127.0.0.1:")
    assert "caller" not in unknown
    assert token("ranks") not in text
    assert token("nobody") not in text


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Basic YW5uYTpwYXNz"],
        [token("root")],
        ["Bearer " + "x" * 4000],
        [f"Bearer {token('root')}", f"Bearer {token('root')}"],
    ],
)
async def test_a_header_that_is_not_one_token_is_nobody(
    guarded: Settings, values: list[str]
) -> None:
    metadata = tuple(("authorization", value) for value in values)
    async with Planner(guarded) as planner, Client(planner.address) as client:
        refusal = await answer(client, METHODS[0], metadata=metadata)
        assert refusal.code is UNAUTHENTICATED
        assert [i.reason for i in refusal.infos] == ["CREDENTIALS_UNKNOWN"]


async def test_every_entry_is_compared_in_constant_time(
    guarded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    class Watched:
        @staticmethod
        def compare_digest(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return hmac.compare_digest(a, b)

    monkeypatch.setattr(gate, "hmac", Watched)
    async with Planner(guarded) as planner:
        for name in ("anna", "root", "nobody"):
            compared.clear()
            async with Client(planner.address, token(name)) as client:
                await answer(client, METHODS[0])
            assert len(compared) == len(TOKENS)


async def test_health_is_open_and_reflection_for_whoever_is_known(guarded: Settings) -> None:
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    async with Planner(guarded) as planner:
        async with Client(planner.address) as client:
            health = health_pb2_grpc.HealthStub(client.channel)
            status = (await health.Check(health_pb2.HealthCheckRequest())).status
            assert status == health_pb2.HealthCheckResponse.SERVING
            stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
            refusal = await refused(stub.ServerReflectionInfo(iter([listing])))
            assert refusal.code is UNAUTHENTICATED
            assert len(refusal.infos) == 1
        for name in ("anna", "ranks", "root"):
            async with Client(planner.address, token(name)) as client:
                stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
                [found] = [r async for r in stub.ServerReflectionInfo(iter([listing]))]
                services = {s.name for s in found.list_services_response.service}
                assert services - {"grpc.health.v1.Health"} <= set(ROLES)


async def test_tokens_change_under_load_and_every_call_has_its_answer(
    guarded: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.yaml"
    with_both = file.read_text()
    codes: list[grpc.StatusCode] = []
    async with Planner(guarded) as planner:

        async def load(name: str) -> None:
            async with Client(planner.address, token(name)) as client:
                while not done.is_set():
                    try:
                        await client.planner.ListModels(planner_pb2.ListModelsRequest(), timeout=5)
                    except grpc.aio.AioRpcError as error:
                        assert name == "bert", "the entry was there all along"
                        codes.append(error.code())

        done = asyncio.Event()
        loads = [asyncio.create_task(load(name)) for name in ("anna", "anna", "bert")]
        for text in (entry("anna", "client"), "- [", "", with_both):
            file.write_text(text)
            await asyncio.sleep(1.2)
        async with Client(planner.address, token("bert")) as client:
            await client.planner.ListModels(planner_pb2.ListModelsRequest(), timeout=5)
        done.set()
        await asyncio.gather(*loads)
    assert set(codes) == {UNAUTHENTICATED}


async def test_a_new_token_gets_in_at_once(guarded: Settings, tmp_path: Path) -> None:
    async with Planner(guarded) as planner, Client(planner.address, token("carl")) as client:
        assert (await answer(client, METHODS[0])).code is UNAUTHENTICATED
        file = tmp_path / "tokens.yaml"
        file.write_text(file.read_text() + entry("carl", "client"))
        await client.planner.ListModels(planner_pb2.ListModelsRequest())


async def test_open_calls_end_with_their_token_and_their_work_goes_on(
    guarded: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.yaml"
    everyone = file.read_text()
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    short_lived = entry("short", "client", soon)
    file.write_text(everyone + short_lived)
    patient = replace(guarded, timing=replace(guarded.timing, broken_stream_grace=10.0))
    async with (
        Planner(patient) as planner,
        Client(planner.address, token("anna")) as anna,
        Client(planner.address, token("short")) as short,
        Client(planner.address, token("root")) as root,
        Executor(planner.address, "one", token=token("ranks")) as runs,
        Executor(planner.address, "two", token=token("ranks"), model="other") as waits,
        asking(runs, waits) as [_, waiting],
    ):
        generate = aiter(anna.generations.Generate(generation_pb2.GenerateRequest(spec=spec())))
        name = (await anext(generate)).event.generation
        run = await runs.start()
        watch = generation_pb2.WatchGenerationRequest(name=name)
        stays = root.generations.WatchGeneration(watch)
        await stays.read()
        expires = await short.create(queue=True)
        expiring = short.generations.WatchGeneration(
            generation_pb2.WatchGenerationRequest(name=expires.name)
        )
        file.write_text(entry("root", "admin") + short_lived)
        for call in (generate, waiting, expiring):
            assert_shown_out(await asyncio.wait_for(refused(call), 6))
        assert_shown_out(await run.refusal())
        assert (await refused(anna.generations.WatchGeneration(watch))).code is UNAUTHENTICATED

        file.write_text(everyone)
        again = await runs.attach(run.lease, run.assignment)
        await again.attached()
        await again.report(0, 6)
        await again.complete()
        events = [response.event async for response in stays]
    assert events[-1].finished.state == generation_pb2.GENERATION_STATE_SUCCEEDED
    assert events[-1].finished.attempt == 1


def assert_shown_out(refusal: Refusal) -> None:
    assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal.message
    assert [info.reason for info in refusal.infos] == ["CREDENTIALS_REVOKED"]
    assert refusal.retry_seconds


async def test_an_executor_holds_only_what_its_identity_acquired(guarded: Settings) -> None:
    async with (
        Planner(guarded) as planner,
        Client(planner.address, token("anna")) as client,
        Executor(planner.address, token=token("ranks")) as executor,
        Executor(planner.address, token=token("others")) as thief,
        asking(executor) as [acquiring],
    ):
        name = (await client.create()).name
        lease = await acquiring
        assert lease is not None
        stolen = await thief.attach(lease)
        refusal = await stolen.refusal()
        assert refusal.code is grpc.StatusCode.ABORTED
        assert [i.reason for i in refusal.infos] == ["STALE_LEASE"]
        run = await executor.attach(lease)
        await run.attached()
        assert (await client.get(name)).executor == "ranks/exec-1"
        refusal = await refused(thief.upload(lease, "image.png", b"forged"))
        assert refusal.code is grpc.StatusCode.ABORTED
        # Another identity's executor may go by the same name, and disturbs nobody.
        assert await thief.acquire(wait=0) is None
        await run.report(0, len(run.steps))
        await executor.upload(lease, "image.png", b"picture")
        await run.complete()


async def test_streams_are_counted_for_each_client(guarded: Settings) -> None:
    limited = replace(guarded, limits=replace(guarded.limits, streams_per_client=2))
    async with (
        Planner(limited) as planner,
        Client(planner.address, token("root")) as root,
        Client(planner.address, token("anna")) as anna,
    ):
        name = (await root.create(queue=True)).name
        request = generation_pb2.WatchGenerationRequest(name=name)
        open_calls = [root.generations.WatchGeneration(request) for _ in range(2)]
        for call in open_calls:
            await call.read()
        refusal = await refused(root.generations.WatchGeneration(request))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [i.reason for i in refusal.infos] == ["TOO_MANY_STREAMS"]
        assert refusal.retry_seconds == 5
        # Unary calls and other clients go on.
        await root.get(name)
        own = anna.generations.Generate(
            generation_pb2.GenerateRequest(spec=create_request().spec, queue_without_executor=True)
        )
        await own.read()
        own.cancel()
        open_calls[0].cancel()
        await asyncio.sleep(0.2)
        again = root.generations.WatchGeneration(request)
        assert await again.read() is not grpc.aio.EOF
        again.cancel()
        open_calls[1].cancel()


async def test_a_reader_that_stops_is_let_go_and_told_so() -> None:
    ended = asyncio.Event()

    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        answer = planner_pb2.CompilePlanResponse()
        answer.plan.plan_id = "x" * (1 << 20)
        try:
            while True:
                yield answer
        except CallRefused:
            ended.set()
            raise

    server = grpc.aio.server(interceptors=(Boundary(Gate(None, Limits()), 0.3, 1 << 20),))
    handler = grpc.unary_stream_rpc_method_handler(
        endless,
        request_deserializer=planner_pb2.CompilePlanRequest.FromString,
        response_serializer=planner_pb2.CompilePlanResponse.SerializeToString,
    )
    name = "ditplan.v1.PlannerService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"Endless": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}") as client:
            call = client.channel.unary_stream(f"/{name}/Endless")(b"")
            await asyncio.wait_for(ended.wait(), 10)
            refusal = await refused(call)
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            assert [i.reason for i in refusal.infos] == ["STREAM_STALLED"]
    finally:
        await server.stop(None)


async def test_a_reflection_stream_without_questions_ends(settings: Settings) -> None:
    short = replace(settings, timing=replace(settings.timing, stalled_seconds=0.3))
    async with Planner(short) as planner, Client(planner.address) as client:
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        refusal = await refused(stub.ServerReflectionInfo())
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert [i.reason for i in refusal.infos] == ["STREAM_STALLED"]


async def test_a_call_without_its_message_is_refused_at_once_or_ends_in_time(
    guarded: Settings,
) -> None:
    short = replace(guarded, timing=replace(guarded.timing, stalled_seconds=0.5))

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(20)
        yield b""

    path = "/ditplan.v1.PlannerService/ListModels"
    async with Planner(short) as planner:
        for name, reason in (("nobody", "CREDENTIALS_UNKNOWN"), ("anna", "STREAM_STALLED")):
            async with Client(planner.address, token(name)) as client:
                call = client.channel.stream_unary(path)(nothing())
                refusal = await asyncio.wait_for(refused(call), 5)
                assert [i.reason for i in refusal.infos] == [reason]


async def test_watches_of_health_are_counted_and_checks_are_not(settings: Settings) -> None:
    limited = replace(
        settings,
        limits=replace(settings.limits, streams_per_client=1),
        security=replace(settings.security, health_listen="127.0.0.1:0"),
    )
    async with Planner(limited) as planner, Client(planner.address) as client:
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        for address in (planner.address, planner.health_address):
            async with Client(address) as prober:
                stub = health_pb2_grpc.HealthStub(prober.channel)
                refusal = await refused(stub.Watch(request, timeout=2))
                assert [i.reason for i in refusal.infos] == ["TOO_MANY_STREAMS"]
                assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        await client.create(queue=True)
