"""A replica as a process of its own, over TLS and with a token of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import trustme
from ditplan.common.connection import Connection
from ditplan.v1 import generation_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planner.service.server import Planner
from planner.settings import Settings
from tests.planner.front.fronts import front_of, until
from tests.planner.service.credentials import Authority, token, with_tls, with_tokens
from tests.planner.service.peers import Client, refused


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A planner's process, and where it listens."""
    command = (sys.executable, "-m", "planner", "serve", "planner", "--listen", "127.0.0.1:0")
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


async def test_a_replica_is_let_in_by_its_token_over_tls_and_drains(
    settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(trustme.CA(), tmp_path)
    secured = with_tokens(with_tls(settings, authority), tmp_path)
    security = secured.security
    file = tmp_path / "front.token"
    file.touch(0o600)
    file.write_text(token("front"))
    async with Planner(secured) as planner:
        with serving(
            *("--dispatch", planner.address, "--dispatch-tls-ca", str(authority.file)),
            *("--dispatch-token-file", str(file), "--tokens", str(security.tokens)),
            *("--tls-cert", str(security.certificate), "--tls-key", str(security.key)),
        ) as (process, address):
            tls = authority.client()
            async with Client(address, token("anna"), tls) as anna:
                created = await anna.create(queue=True)
                watch = generation_pb2.WatchGenerationRequest(name=created.name)
                call = anna.generations.WatchGeneration(watch)
                await call.read()
                health = health_pb2_grpc.HealthStub(anna.channel).Watch(
                    health_pb2.HealthCheckRequest()
                )
                assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
                process.send_signal(signal.SIGTERM)
                assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING

                async def rest() -> None:
                    while await call.read() is not grpc.aio.EOF:
                        pass

                refusal = await refused(rest())
                assert refusal.code is grpc.StatusCode.UNAVAILABLE
                assert [info.reason for info in refusal.infos] == ["STOPPING"]
                assert refusal.retry_seconds
                health.cancel()
            assert process.wait(10) == 0
            assert process.stderr is not None
            said = process.stderr.read()
            assert token("front") not in said
            assert token("anna") not in said


async def test_certificates_of_another_authority_are_taken_up(
    settings: Settings, tmp_path: Path
) -> None:
    old, new = [Authority(trustme.CA(), tmp_path) for _ in range(2)]
    # Authorities of one directory write to the same files.
    own = Connection(ca=old.file)
    first = with_tls(settings, old)
    planner = Planner(first)
    await planner.start()
    async with front_of(settings, planner.address, connection=own) as front:
        assert front._executors.away == ""
        await planner.stop()
        second = replace(with_tls(settings, new), listen=planner.address)
        async with Planner(second), Client(front.address) as client:
            await until(lambda: "certificate" in front._executors.away.lower())
            assert new.file == own.ca
            await until(lambda: front._executors.away == "")
            await client.create(queue=True)
