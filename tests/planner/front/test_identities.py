"""Who calls through a replica, and that nobody passes for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from ditplan.common.connection import Connection
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, monitor_pb2
from ditplan.v1.monitor_pb2_grpc import MonitorServiceStub

from planner.access.forwarded import ON_BEHALF_OF
from planner.service.server import Planner
from planner.settings import Settings
from tests.planner.front.fronts import front_of, until
from tests.planner.service.credentials import Authority, entry, token, with_tls, with_tokens
from tests.planner.service.peers import (
    Client,
    Refusal,
    create_request,
    executor_message,
    refused,
    spec,
)

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
def guarded(settings: Settings, tmp_path: Path) -> Settings:
    return with_tokens(settings, tmp_path)


def get(client: Client, name: str, metadata: Sequence[tuple[str, str]] = ()) -> Any:
    request = generation_pb2.GetGenerationRequest(name=name)
    return client.generations.GetGeneration(request, metadata=metadata)


def reasons(refusal: Refusal) -> list[str]:
    return [info.reason for info in refusal.infos]


async def test_owners_see_their_own_through_any_replica(guarded: Settings) -> None:
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address) as one,
        front_of(guarded, planner.address) as two,
        Client(one.address, token("anna")) as anna,
        Client(two.address, token("anna")) as also_anna,
        Client(two.address, token("bert")) as bert,
        Client(one.address, token("root")) as root,
    ):
        created = await anna.create(queue=True)
        assert (await also_anna.get(created.name)).owner == ""
        assert (await root.get(created.name)).owner == "anna"
        refusal = await refused(get(bert, created.name))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        cancel = generation_pb2.CancelGenerationRequest(name=created.name)
        refusal = await refused(bert.generations.CancelGeneration(cancel))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        once = monitor_pb2.WatchStatusRequest(once=True)
        assert [s.queued async for s in MonitorServiceStub(root.channel).WatchStatus(once)] == [1]
        denied = await refused(MonitorServiceStub(anna.channel).WatchStatus(once))
        assert (denied.code, reasons(denied)) == (DENIED, ["WRONG_ROLE"])


async def test_a_client_cannot_call_on_behalf_of_another(guarded: Settings) -> None:
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address) as front,
        Client(front.address, token("anna")) as anna,
    ):
        mine = await anna.create(queue=True)
        for address in (front.address, planner.address):
            for name in ("bert", "root", "ranks"):
                async with Client(address, token(name)) as client:
                    for stated in ("anna", "root", "front", ""):
                        refusal = await refused(get(client, mine.name, [(ON_BEHALF_OF, stated)]))
                        assert (refusal.code, reasons(refusal)) == (DENIED, ["WRONG_ROLE"])
                        assert "may not call on behalf of others" in refusal.message
            async with Client(address) as nobody:
                refusal = await refused(get(nobody, mine.name, [(ON_BEHALF_OF, "anna")]))
                assert refusal.code is UNAUTHENTICATED


async def test_without_tokens_nobody_is_believed(settings: Settings) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        mine = await client.create(queue=True)
        refusal = await refused(get(client, mine.name, [(ON_BEHALF_OF, "anna")]))
        assert (refusal.code, reasons(refusal)) == (DENIED, ["WRONG_ROLE"])


async def test_a_front_calls_for_clients_and_administrators_only(guarded: Settings) -> None:
    async with Planner(guarded) as planner, Client(planner.address, token("front")) as front:
        for stated, code, reason in (
            ([], DENIED, "WRONG_ROLE"),
            (["front"], DENIED, "WRONG_ROLE"),
            (["ranks"], DENIED, "WRONG_ROLE"),
            (["anna", "anna"], DENIED, "WRONG_ROLE"),
            (["anna", "root"], DENIED, "WRONG_ROLE"),
            (["nobody"], UNAUTHENTICATED, "CREDENTIALS_UNKNOWN"),
            ([""], UNAUTHENTICATED, "CREDENTIALS_UNKNOWN"),
            (["late"], UNAUTHENTICATED, "CREDENTIALS_EXPIRED"),
            (["anna"], grpc.StatusCode.NOT_FOUND, "UNKNOWN_GENERATION"),
        ):
            metadata = [(ON_BEHALF_OF, name) for name in stated]
            refusal = await refused(get(front, "generations/0123456789abcdef", metadata))
            assert (refusal.code, reasons(refusal)) == (code, [reason]), stated
        # Not even for an executor, nor for whoever else.
        for name in ("ranks", "root"):
            acquire = dispatch_pb2.AcquireLeaseRequest(executor=executor_message())
            call = front.dispatch.AcquireLease(acquire, metadata=((ON_BEHALF_OF, name),))
            refusal = await refused(call)
            assert (refusal.code, reasons(refusal)) == (DENIED, ["WRONG_ROLE"])


async def test_an_executor_takes_no_leases_through_a_replica(guarded: Settings) -> None:
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address) as front,
        Client(front.address, token("ranks")) as ranks,
    ):
        acquire = dispatch_pb2.AcquireLeaseRequest(executor=executor_message())
        refusal = await refused(ranks.dispatch.AcquireLease(acquire))
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
        refusal = await refused(get(ranks, "generations/0123456789abcdef"))
        assert (refusal.code, reasons(refusal)) == (DENIED, ["WRONG_ROLE"])


async def test_who_is_taken_out_of_the_file_of_dispatch_is_unknown_there(
    guarded: Settings, tmp_path: Path
) -> None:
    assert guarded.security.tokens is not None
    own = tmp_path / "of-the-replica.yaml"
    own.write_text(guarded.security.tokens.read_text() + entry("carl", "client"))
    security = replace(guarded.security, tokens=own)
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address, security=security) as front,
        Client(front.address, token("carl")) as carl,
    ):
        refusal = await refused(get(carl, "generations/0123456789abcdef"))
        assert (refusal.code, reasons(refusal)) == (UNAUTHENTICATED, ["CREDENTIALS_UNKNOWN"])


async def test_roles_are_those_of_the_file_of_dispatch(guarded: Settings, tmp_path: Path) -> None:
    own = tmp_path / "of-the-replica.yaml"
    own.write_text(entry("anna", "admin"))
    security = replace(guarded.security, tokens=own)
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address, security=security) as front,
        Client(front.address, token("anna")) as anna,
    ):
        once = monitor_pb2.WatchStatusRequest(once=True)
        refusal = await refused(MonitorServiceStub(anna.channel).WatchStatus(once))
        assert (refusal.code, reasons(refusal)) == (DENIED, ["WRONG_ROLE"])


@pytest.mark.parametrize("name", ["", "anna", "root", "ranks", "late", "nobody"])
async def test_a_replica_that_is_not_let_in_says_so(guarded: Settings, name: str) -> None:
    own = Connection(token=token(name) if name else "")
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address, connection=own) as front,
        Client(front.address, token("bert")) as bert,
    ):
        refusal = await refused(bert.generations.CreateGeneration(create_request(queue=True)))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert reasons(refusal) == ["DISPATCH_UNREACHABLE"]


async def test_a_front_can_be_let_in_while_it_runs(guarded: Settings, tmp_path: Path) -> None:
    own = Connection(token=token("front-2"))
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address, connection=own) as front,
        Client(front.address, token("bert")) as bert,
    ):
        file = tmp_path / "tokens.yaml"
        file.write_text(file.read_text() + entry("front-2", "front"))
        await until(lambda: not front._executors.away)
        await bert.create(queue=True)


async def test_streams_are_counted_for_who_calls_over_all_replicas(guarded: Settings) -> None:
    limited = replace(guarded, limits=replace(guarded.limits, streams_per_client=3))
    async with (
        Planner(limited) as planner,
        front_of(guarded, planner.address) as one,
        front_of(guarded, planner.address) as two,
        Client(one.address, token("anna")) as anna,
        Client(two.address, token("anna")) as also_anna,
        Client(two.address, token("bert")) as bert,
    ):
        calls = []
        for client in (anna, also_anna, anna, bert, bert, bert):
            created = await client.create(queue=True)
            watch = generation_pb2.WatchGenerationRequest(name=created.name)
            call = client.generations.WatchGeneration(watch)
            await call.read()
            calls.append(call)
        for client in (anna, also_anna, bert):
            refusal = await refused(client.generations.WatchGeneration(watch))
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reasons(refusal) == ["TOO_MANY_STREAMS"]


async def test_a_replica_holds_more_streams_than_one_client_may(guarded: Settings) -> None:
    async with (
        Planner(
            replace(guarded, limits=replace(guarded.limits, streams_per_client=150))
        ) as planner,
        front_of(guarded, planner.address) as front,
        Client(front.address, token("anna")) as anna,
        Client(front.address, token("bert")) as bert,
    ):
        for client in (anna, bert):
            created = await client.create(queue=True)
            watch = generation_pb2.WatchGenerationRequest(name=created.name)
            calls = [client.generations.WatchGeneration(watch) for _ in range(140)]
            await asyncio.gather(*(call.read() for call in calls))


async def test_certificates_prove_who_calls_and_who_forwards(
    settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(trustme.CA(), tmp_path)
    tokens = tmp_path / "tokens.yaml"
    roles = {"anna": "client", "bert": "client", "front": "front"}
    tokens.write_text(
        "".join(
            f"- name: {name}\n  role: {role}\n  certificate: {name}.example\n"
            for name, role in roles.items()
        )
    )
    secured = with_tls(settings, authority, client_ca=authority.file)
    secured = replace(secured, security=replace(secured.security, tokens=tokens))
    certificate, key = authority.issue("front")
    own = Connection(ca=authority.file, certificate=certificate, key=key)
    async with (
        Planner(secured) as planner,
        front_of(secured, planner.address, connection=own) as front,
        Client(front.address, tls=authority.client("anna")) as anna,
        Client(front.address, tls=authority.client("bert")) as bert,
        Client(planner.address, tls=authority.client("anna")) as direct,
    ):
        created = await anna.create(queue=True)
        assert (await direct.get(created.name)).name == created.name
        refusal = await refused(get(bert, created.name))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        refusal = await refused(get(bert, created.name, [(ON_BEHALF_OF, "anna")]))
        assert refusal.code is DENIED
        [listed] = (
            await anna.generations.ListGenerations(generation_pb2.ListGenerationsRequest())
        ).generations
        assert listed.name == created.name


@pytest.mark.parametrize("name", ["anna", "front"])
async def test_a_call_ends_with_the_token_of_either_and_its_work_goes_on(
    guarded: Settings, tmp_path: Path, name: str
) -> None:
    own = tmp_path / "of-the-replica.yaml"
    file = tmp_path / "tokens.yaml"
    own.write_text(file.read_text())
    security = replace(guarded.security, tokens=own)
    async with (
        Planner(guarded) as planner,
        front_of(guarded, planner.address, security=security) as front,
        Client(front.address, token("anna")) as anna,
        Client(planner.address, token("root")) as root,
    ):
        request = generation_pb2.GenerateRequest(spec=spec(), queue_without_executor=True)
        call = anna.generations.Generate(request)
        work = (await call.read()).event.generation
        entries = file.read_text()
        file.write_text(entries.replace(f"name: {name}\n", "name: another\n"))

        async def rest() -> None:
            while await call.read() is not grpc.aio.EOF:
                pass

        refusal = await refused(rest())
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert reasons(refusal) == ["CREDENTIALS_REVOKED"]
        assert (await root.get(work)).state == generation_pb2.GENERATION_STATE_QUEUED
        file.write_text(entries)
        # The replica takes its own file for what it is.
        call = anna.generations.Generate(request)
        work = (await call.read()).event.generation
        own.write_text(own.read_text().replace("name: anna\n", "name: another\n"))
        refusal = await refused(rest())
        assert reasons(refusal) == ["CREDENTIALS_REVOKED"]
        assert (await root.get(work)).state == generation_pb2.GENERATION_STATE_QUEUED
