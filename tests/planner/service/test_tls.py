"""Real certificates over real sockets: who can connect, and what happens when files change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import trustme
from ditplan.v1 import planner_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from planner.access.tls import SecurityError
from planner.access.tokens import TokensError
from planner.service.server import Planner, Settings
from tests.planner.service.credentials import Authority, token, with_tls, with_tokens
from tests.planner.service.peers import Client, refused

LIST = planner_pb2.ListModelsRequest()
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    directory = tmp_path / "stranger"
    directory.mkdir()
    return Authority(trustme.CA(), directory)


async def cannot_connect(address: str, tls: grpc.ChannelCredentials | None) -> bool:
    async with Client(address, tls=tls) as client:
        refusal = await refused(client.planner.ListModels(LIST, timeout=5))
    return refusal.code is UNAVAILABLE and not refusal.infos


async def test_with_tls_plaintext_and_other_authorities_do_not_connect(
    settings: Settings, authority: Authority, stranger: Authority
) -> None:
    async with Planner(with_tls(settings, authority)) as planner:
        async with Client(planner.address, tls=authority.client()) as client:
            await client.planner.ListModels(LIST, timeout=5)
        assert await cannot_connect(planner.address, None)
        assert await cannot_connect(planner.address, stranger.client())


async def test_with_a_client_authority_only_its_certificates_connect(
    settings: Settings, authority: Authority, stranger: Authority
) -> None:
    async with Planner(with_tls(settings, authority, authority.file)) as planner:
        async with Client(planner.address, tls=authority.client("anna")) as client:
            await client.planner.ListModels(LIST, timeout=5)
        assert await cannot_connect(planner.address, authority.client())
        certificate, key = stranger.issue("anna")
        roots = authority.file.read_bytes()
        foreign = grpc.ssl_channel_credentials(roots, key.read_bytes(), certificate.read_bytes())
        assert await cannot_connect(planner.address, foreign)


async def test_a_certificate_proves_an_identity_and_a_token_goes_before_it(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    guarded = with_tokens(with_tls(settings, authority, authority.file), tmp_path)
    with (tmp_path / "tokens.yaml").open("a") as file:
        file.write("- {name: anna, role: client, certificate: anna.example}\n")
        file.write("- {name: gpu, role: executor, certificate: gpu}\n")
        file.write("- {name: gone, role: client, certificate: gone, expires: 2001-01-01}\n")
    async with Planner(guarded) as planner:
        # By its subject alternative name, and by its common name.
        async with Client(planner.address, tls=authority.client("anna")) as client:
            await client.planner.ListModels(LIST, timeout=5)
        async with Client(planner.address, tls=authority.client("gpu")) as client:
            refusal = await refused(client.planner.ListModels(LIST, timeout=5))
            assert [i.reason for i in refusal.infos] == ["WRONG_ROLE"]
        for name, reason in (("nobody", "CREDENTIALS_UNKNOWN"), ("gone", "CREDENTIALS_EXPIRED")):
            async with Client(planner.address, tls=authority.client(name)) as client:
                refusal = await refused(client.planner.ListModels(LIST, timeout=5))
                assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
                assert [i.reason for i in refusal.infos] == [reason]
        async with Client(planner.address, token("anna"), authority.client("gpu")) as client:
            await client.planner.ListModels(LIST, timeout=5)


async def test_new_connections_get_new_certificates_and_open_calls_go_on(
    settings: Settings, authority: Authority, stranger: Authority
) -> None:
    """Under load, through a half of a replacement: nobody is refused who trusts what is there."""
    done = asyncio.Event()
    calls = 0

    async def load(address: str) -> None:
        nonlocal calls
        async with Client(address, tls=authority.client()) as client:
            while not done.is_set():
                await client.planner.ListModels(LIST, timeout=5)
                calls += 1

    served = with_tls(settings, authority)
    certificate, key = served.security.certificate, served.security.key
    assert certificate is not None
    assert key is not None
    async with Planner(served) as planner:
        loads = [asyncio.create_task(load(planner.address)) for _ in range(2)]
        await asyncio.sleep(0.2)
        new_certificate, new_key = stranger.issue("planner", "127.0.0.1")
        with capture_logs() as logs:
            os.replace(new_certificate, certificate)
            async with Client(planner.address, tls=authority.client()) as client:
                await client.planner.ListModels(LIST, timeout=5)
            os.replace(new_key, key)
            async with Client(planner.address, tls=stranger.client()) as client:
                await client.planner.ListModels(LIST, timeout=5)
            assert await cannot_connect(planner.address, authority.client())
            key.unlink()
            async with Client(planner.address, tls=stranger.client()) as client:
                await client.planner.ListModels(LIST, timeout=5)
        before = calls
        await asyncio.sleep(0.2)
        done.set()
        await asyncio.gather(*loads)
        assert calls > before > 0
    events = [entry["event"] for entry in logs if entry["event"].startswith("certificates")]
    assert events == ["certificates_kept", "certificates_read", "certificates_kept"]


@contextlib.contextmanager
def handshakes(port: int, context: ssl.SSLContext, threads: int) -> Iterator[list[int]]:
    """As many as can be had at once; how many there were in the one number that it gives."""
    done, counts = threading.Event(), [0]

    def connect() -> None:
        while not done.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), 3) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1"),
            ):
                counts[0] += 1

    running = [threading.Thread(target=connect) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield counts
    finally:
        done.set()
        for thread in running:
            thread.join()


async def test_a_process_survives_new_certificates_in_the_middle_of_many_handshakes(
    settings: Settings, authority: Authority, stranger: Authority
) -> None:
    """gRPC's own way to reload them crashes where another thread begins a handshake."""
    certificate, key = authority.issue("planner", "127.0.0.1")
    others = [stranger.issue(f"other-{i}", "127.0.0.1") for i in range(16)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    options = ("--tls-cert", certificate, "--tls-key", key, "--listen", "127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-m", "planner", "serve", "planner", "--data", settings.data, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().rpartition(":")[2])
        with handshakes(port, context, threads=16) as counts:
            for new_certificate, new_key in others:
                os.replace(new_certificate, certificate)
                os.replace(new_key, key)
                await asyncio.sleep(0.2)
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert counts[0] > 100
    assert errors.count('"certificates_read"') > 6
    assert "Handshaker factory creation failed" not in errors


async def test_health_has_a_plaintext_port_that_says_the_same(
    settings: Settings, authority: Authority
) -> None:
    served = with_tls(settings, authority, authority.file)
    served = replace(served, security=replace(served.security, health_listen="127.0.0.1:0"))
    async with Planner(served) as planner, Client(planner.health_address) as prober:
        stub = health_pb2_grpc.HealthStub(prober.channel)
        for service in ("", "liveness"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await stub.Check(request, timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        refusal = await refused(prober.planner.ListModels(LIST, timeout=5))
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_key_that_everyone_can_read_is_said(
    settings: Settings, authority: Authority
) -> None:
    served = with_tls(settings, authority)
    assert served.security.key is not None
    for mode, expected in ((0o600, 0), (0o644, 1)):
        served.security.key.chmod(mode)
        with capture_logs() as logs:
            async with Planner(replace(served, data=served.data / str(mode))):
                pass
        assert [e["event"] for e in logs].count("secret_exposed") == expected


def test_what_cannot_be_served_is_refused_by_name(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    good = with_tls(settings, authority, authority.file).security
    _, other_key = authority.issue("other")
    empty = tmp_path / "empty"
    empty.touch()
    for changes, why in (
        ({"certificate": None}, "--tls-cert and --tls-key go together"),
        ({"certificate": None, "key": None}, "--tls-client-ca goes together with --tls-cert"),
        ({"insecure": True}, "--insecure is for plaintext"),
        ({"key": other_key}, r"do not go together: KEY_VALUES_MISMATCH"),
        ({"certificate": tmp_path / "none"}, "none: No such file"),
        ({"certificate": empty}, "--tls-cert .*empty"),
        ({"client_ca": empty}, "--tls-client-ca .*empty: holds no certificate"),
    ):
        with pytest.raises(SecurityError, match=why):
            Planner(replace(settings, security=replace(good, **changes)))
    with pytest.raises(TokensError, match="No such file"):
        Planner(replace(settings, security=replace(good, tokens=tmp_path / "none")))


def test_plaintext_for_other_machines_needs_an_explicit_word(settings: Settings) -> None:
    for listen in ("0.0.0.0:0", "[::]:0", "192.0.2.1:0", "planner.example:0"):
        with pytest.raises(SecurityError, match="by --insecure"):
            Planner(replace(settings, listen=listen))


async def test_the_explicit_word_serves_them(settings: Settings) -> None:
    open_to_all = replace(settings, listen="0.0.0.0:0")
    open_to_all = replace(open_to_all, security=replace(settings.security, insecure=True))
    async with Planner(open_to_all) as planner:
        port = planner.address.rpartition(":")[2]
        async with Client(f"127.0.0.1:{port}") as client:
            await client.planner.ListModels(LIST, timeout=5)
