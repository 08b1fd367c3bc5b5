"""How an executor proves who it is, and whom it believes to be its planner."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import structlog
import trustme
from ditplan.common.connection import Connection
from ditplan.v1.executor_pb2 import Executor

from executor.agent.dialer import Dialer
from executor.agent.telemetry.facts import Facts
from tests.executor.agent.process import ENVIRONMENT, REPOSITORY, command
from tests.executor.agent.scripted_planner import Job, ScriptedPlanner
from tests.executor.programs import program

FIRST, SECOND = "first-token-0123456789", "second-token-0123456789"


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Set after a while, so that no test waits for ever."""
    stop = threading.Event()
    timer = threading.Timer(20, stop.set)
    timer.start()
    yield stop
    timer.cancel()


def serve_by_tls(planner: ScriptedPlanner, ca: trustme.CA) -> None:
    """A restart with a certificate of this authority."""
    planner.stop()
    made = ca.issue_cert("127.0.0.1")
    pair = made.private_key_pem.bytes(), made.cert_chain_pems[0].bytes()
    planner.credentials = grpc.ssl_server_credentials([pair])
    planner.start()


def dialer(planner: ScriptedPlanner, connection: Connection, stop: threading.Event) -> Dialer:
    dialer = Dialer(
        planner.address, connection, stop=stop, log=structlog.get_logger(), facts=Facts()
    )
    dialer.announce(Executor(name="here"))
    return dialer


def test_a_token_goes_with_every_call_and_is_read_again_when_it_changes(
    planner: ScriptedPlanner, tmp_path: Path, stop: threading.Event
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{FIRST}\n")
    dialling = dialer(planner, Connection(token_file=file), stop)
    for token in (FIRST, SECOND):
        file.write_text(f"{token}\n")
        planner.offer(Job(program("F")))
        assert dialling.acquire() is not None
        assert planner.bearers[-1] == f"Bearer {token}"
    file.unlink()
    planner.offer(Job(program("F")))
    assert dialling.acquire() is not None
    assert planner.bearers[-1] == f"Bearer {SECOND}", "while a file is being replaced"
    dialling.close()


def test_a_planner_of_a_new_authority_is_believed_once_the_file_names_it(
    planner: ScriptedPlanner, tmp_path: Path, stop: threading.Event
) -> None:
    old, new, file = trustme.CA(), trustme.CA(), tmp_path / "ca.pem"
    old.cert_pem.write_to_path(file)
    serve_by_tls(planner, old)
    dialling = dialer(planner, Connection(ca=file, token=FIRST), stop)
    planner.offer(Job(program("F")))
    assert dialling.acquire() is not None
    assert planner.bearers == [f"Bearer {FIRST}"]

    serve_by_tls(planner, new)
    planner.offer(Job(program("F")))
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(dialling.acquire()))
    thread.start()
    time.sleep(1)
    assert not found
    # Half of a replacement changes nothing.
    file.write_bytes(b"")
    time.sleep(0.5)
    new.cert_pem.write_to_path(file)
    thread.join(20)
    assert found != [None]
    assert len(found) == 1
    dialling.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--planner", "planner.example:7330"), "encrypt by --tls-ca"),
        (("--planner", "127.0.0.1:7330", "--tls-ca", "none.pem"), "none.pem: No such file"),
        (("--planner", "127.0.0.1:7330", "--token-file", "none"), "none: No such file"),
    ],
)
def test_what_it_cannot_be_dialled_with_is_said_before_the_model_is_loaded(
    options: tuple[str, ...], why: str
) -> None:
    done = subprocess.run(
        command("--model", "nowhere", *options),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert why in done.stderr
