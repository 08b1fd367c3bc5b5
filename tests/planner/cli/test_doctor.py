"""``ditplan doctor`` finds what is wrong with a deployment, and says what to do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from ditplan.v1 import executor_pb2, generation_pb2, monitor_pb2, planner_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection

from planner.cli.checkup import service
from planner.cli.checkup.contract import check_contract
from planner.cli.checkup.finding import Verdict, ok
from planner.cli.checkup.service import Answers
from planner.service.server import Planner, Settings
from tests.planner.cli.commands import ditplan
from tests.planner.service.credentials import Authority, token, with_tls, with_tokens
from tests.planner.service.peers import MODEL, Client, Executor, asking

OTHER = "black-forest-labs/FLUX.1-schnell"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path)


async def diagnosed(
    address: str, *arguments: object, **environment: str
) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status and the findings by check."""
    options = ("doctor", "--planner", address, "--format", "json", *arguments)
    done = await ditplan(*options, **environment)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["healthy"] == (done.returncode == 0)
    return done.returncode, {each["check"]: each for each in document["checks"]}


def verdicts(findings: dict[str, dict[str, str]]) -> dict[str, str]:
    return {check: each["verdict"] for check, each in findings.items() if each["verdict"] != "ok"}


def only(findings: dict[str, dict[str, str]], check: str) -> tuple[str, str]:
    """Message and remedy of the check that is the only one to fail; those after it are skipped."""
    found = verdicts(findings)
    assert [name for name, verdict in found.items() if verdict == "failed"] == [check]
    return findings[check]["message"], findings[check]["remedy"]


async def test_a_sound_deployment_is_all_ok(settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "cache.yaml"
    config.write_text("cache_config:\n  residual_diff_threshold: 0.2\n")
    versions = ["torch 2.13.0", "ditplan 0.1.0"]
    async with (
        Planner(settings) as planner,
        Executor(planner.address, "one", versions=versions) as one,
        asking(one),
    ):
        plan = ("--model", MODEL, "--config", config)
        status, findings = await diagnosed(planner.address, *plan)
        text = await ditplan("doctor", "--planner", planner.address, *plan)
    assert (status, verdicts(findings)) == (0, {})
    assert findings["versions"]["message"] == "ditplan 0.1.0, torch 2.13.0 everywhere"
    assert findings["executors"]["message"] == f"1 connected: one ({MODEL}, cpu, float32)"
    assert findings["plan"]["message"].endswith(" can run on one")
    assert findings["queue"]["message"] == "empty; 0 running"
    assert [line.split()[:2] for line in text.stdout.splitlines()] == [
        ["ok", check] for check in findings
    ]


async def test_what_no_executor_can_run_is_said_in_words(
    settings: Settings, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, "one") as one,
        asking(one),
    ):

        async def plan(text: str, model: str = MODEL) -> tuple[str, str]:
            config.write_text(text)
            options = ("--model", model, "--config", config)
            return only((await diagnosed(planner.address, *options))[1], "plan")

        message, remedy = await plan("parallelism_config:\n  ulysses_size: 2\n")
        assert "one: the plan wants world size 2, it has world size 1" in message
        assert "--plan" in remedy
        message, remedy = await plan("", OTHER)
        assert message == f"no connected executor serves {OTHER}"
        assert f"`ditplan serve executor --planner {planner.address} --model {OTHER}`" in remedy
        message, _ = await plan("cache_config:\n  Fn_compute_block: 1\n")
        assert "cache_config.Fn_compute_block: line 2, column 3: unknown key" in message
        message, remedy = await plan("", "nobody/knows")
        assert message == "the planner knows no model 'nobody/knows'"
        assert "--model-root" in remedy

        await client.create(queue=True, model=OTHER)
        status, findings = await diagnosed(planner.address)
    assert (status, verdicts(findings)) == (0, {"queue": "warning"})
    assert f"no connected executor serves {OTHER}" in findings["queue"]["message"]


async def test_without_executors_it_fails(settings: Settings) -> None:
    async with Planner(settings) as planner:
        status, findings = await diagnosed(planner.address)
    message, remedy = only(findings, "executors")
    assert (status, message) == (1, "none is connected")
    assert f"--planner {planner.address} --model MODEL" in remedy


@pytest.mark.parametrize(
    ("address", "check", "says"),
    [
        ("127.0.0.1:9", "address", "nothing listens at 127.0.0.1:9"),
        ("unix:/nowhere.sock", "address", "No such file or directory"),
        ("localhost:none", "address", "'localhost:none' is not HOST:PORT"),
        ("planner.example:7330", "options", "encrypt by --tls-ca"),
    ],
)
async def test_what_cannot_be_dialled_is_named(address: str, check: str, says: str) -> None:
    status, findings = await diagnosed(address)
    message, remedy = only(findings, check)
    assert status == 1
    assert says in message
    assert remedy
    assert set(verdicts(findings).values()) == {"failed", "skipped"}
    assert findings["health"]["message"] == f"not without {check}"


async def test_a_name_that_does_not_exist_is_told_from_a_closed_port() -> None:
    _, findings = await diagnosed("no.such.name.invalid:7330", "--insecure")
    message, remedy = only(findings, "address")
    assert message.startswith("no.such.name.invalid has no address: ")
    assert "DNS" in remedy


async def test_what_listens_without_a_word_takes_a_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        status, findings = await diagnosed(f"127.0.0.1:{port}")
    message, remedy = only(findings, "tls")
    assert (status, "says nothing within 3 s" in message) == (1, True)
    assert "stopped or overloaded" in remedy


@pytest.mark.parametrize(
    ("name", "status", "verdict", "says"),
    [
        ("root", 1, "ok", "accepted: of an administrator"),
        ("anna", 0, "ok", "accepted: anna is client"),
        ("ranks", 1, "failed", "ranks is executor, which takes leases"),
        ("late", 1, "failed", "the token has expired"),
        ("nobody", 1, "failed", "the token is not known"),
        ("", 1, "failed", "a token is needed"),
    ],
)
async def test_a_token_is_told_by_its_role(
    settings: Settings, tmp_path: Path, name: str, status: int, verdict: str, says: str
) -> None:
    async with Planner(with_tokens(settings, tmp_path)) as planner:
        secret = {"DITPLAN_TOKEN": token(name)} if name else {}
        found, findings = await diagnosed(planner.address, **secret)
    assert (found, findings["token"]["verdict"]) == (status, verdict)
    assert says in findings["token"]["message"]
    assert bool(findings["token"]["remedy"]) == (verdict == "failed")
    if name == "anna":
        assert verdicts(findings) == {"executors": "skipped", "queue": "skipped"}
        assert findings["versions"]["message"] == "ditplan 0.1.0 here and at the planner"
        assert findings["clock"]["verdict"] == "ok"


async def test_tls_is_told_by_what_is_wrong_with_it(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    ca = ("--tls-ca", authority.file)
    (tmp_path / "stranger").mkdir()
    other = Authority(trustme.CA(), tmp_path / "stranger")
    secured = with_tls(settings, authority)
    async with (
        Planner(secured) as planner,
        Planner(replace(settings, data=tmp_path / "plain")) as plain,
    ):
        certificate, key = Path(tmp_path / "planner.pem"), Path(tmp_path / "planner.key")

        async def tls(address: str, *options: object) -> dict[str, str]:
            return (await diagnosed(address, *options))[1]["tls"]

        good = await tls(planner.address, *ca)
        assert good["verdict"] == "ok"
        assert good["message"].startswith("TLSv1.3, certificate for 127.0.0.1, valid for ")

        unencrypted = await tls(planner.address)
        assert "speaks TLS, and is dialled in plaintext" in unencrypted["message"]
        assert "--tls-ca" in unencrypted["remedy"]
        assert "leave --tls-ca out" in (await tls(plain.address, *ca))["remedy"]
        unknown = await tls(planner.address, "--tls-ca", other.file)
        assert "of an unknown authority" in unknown["message"]
        named = await tls(planner.address, *ca, "--tls-server-name", "planner.example")
        assert "not for planner.example, but for 127.0.0.1, localhost" in named["message"]
        assert "--tls-server-name" in named["remedy"]

        for days, verdict, says in (
            (5, "warning", "valid for 5 more days"),
            (-1, "failed", "certificate has expired"),
        ):
            until = datetime.now(UTC) + timedelta(days=days, hours=1)
            made = authority.ca.issue_cert("127.0.0.1", not_after=until)
            key.write_bytes(made.private_key_pem.bytes())
            certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
            found = await tls(planner.address, *ca)
            assert found["verdict"] == verdict
            assert says in found["message"]
            assert "issue a new one" in found["remedy"]


async def test_a_missing_certificate_of_the_client_is_told(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "stranger").mkdir()
    other = Authority(trustme.CA(), tmp_path / "stranger")
    async with Planner(with_tls(settings, authority, authority.file)) as planner:
        for shown in (None, other.issue("anna")):
            options = ("--tls-cert", shown[0], "--tls-key", shown[1]) if shown else ()
            found = await diagnosed(planner.address, "--tls-ca", authority.file, *options)
            message, remedy = only(found[1], "tls")
            assert "does not accept this side's certificate" in message
            assert "--tls-client-ca" in remedy
        certificate, key = authority.issue("anna")
        good = ("--tls-ca", authority.file, "--tls-cert", certificate, "--tls-key", key)
        findings = (await diagnosed(planner.address, *good))[1]
        assert [findings[check]["verdict"] for check in ("tls", "token")] == ["ok", "ok"]


def other_contract(change: Callable[[FileDescriptorProto], None]) -> DescriptorPool:
    """The contract as another version might have it."""
    pool = DescriptorPool()
    added = set()

    def add(file: FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        copy = FileDescriptorProto()
        file.CopyToProto(copy)
        change(copy)
        pool.Add(copy)

    for module in (planner_pb2, generation_pb2, monitor_pb2):
        add(module.DESCRIPTOR)
    return pool


def unchanged(file: FileDescriptorProto) -> None:
    pass


def without_a_field(file: FileDescriptorProto) -> None:
    for message in file.message_type:
        if message.name == "GenerationSpec":
            [index] = [i for i, each in enumerate(message.field) if each.name == "save_latents"]
            del message.field[index]


def with_another_number(file: FileDescriptorProto) -> None:
    for message in file.message_type:
        if message.name == "Plan":
            [field] = [each for each in message.field if each.name == "plan_id"]
            field.number = 7


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        (unchanged, Verdict.OK, "names alike"),
        (without_a_field, Verdict.WARNING, "does not know GenerationSpec.save_latents"),
        (with_another_number, Verdict.FAILED, "another meaning of Plan.plan_id"),
    ],
)
async def test_another_contract_is_told_by_its_names(
    change: Callable[[FileDescriptorProto], None], verdict: Verdict, says: str
) -> None:
    server = grpc.aio.server()
    names = [f"ditplan.v1.{name}Service" for name in ("Planner", "Generation", "Monitor")]
    reflection.enable_server_reflection(names, server, pool=other_contract(change))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = await asyncio.to_thread(check_contract, channel)
    finally:
        await server.stop(None)
    assert (found.verdict, says in found.message) == (verdict, True), found


async def test_other_versions_and_clocks_are_warned_of() -> None:
    status = monitor_pb2.WatchStatusResponse(
        executors=[
            monitor_pb2.ExecutorStatus(
                executor=executor_pb2.Executor(name=name, versions=[f"torch {version}"])
            )
            for name, version in (("a", "2.13.0"), ("b", "2.12.1"))
        ]
    )
    found = service.check_versions(Answers(ok("token", ""), status, "9.9.9"))
    assert found.verdict is Verdict.WARNING
    assert found.message == (
        "ditplan is 0.1.0 (this command) and 9.9.9 (planner); torch is 2.13.0 (a) and 2.12.1 (b)"
    )
    for skew, verdict in ((-0.4, Verdict.OK), (30.0, Verdict.WARNING), (None, Verdict.SKIPPED)):
        assert service.check_clock(Answers(ok("token", ""), skew=skew)).verdict is verdict
