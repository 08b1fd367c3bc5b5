"""The planner as a process: killed, signalled, and by what it logs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from ditplan.v1 import generation_pb2, generation_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.planner.service.peers import ADAPTIVE_CONFIG, Client, Executor, asking, create_request

SERVE = """
import asyncio, pathlib, sys
from planner.service.server import Settings, serve
asyncio.run(serve(Settings(data=pathlib.Path(sys.argv[1]), listen="127.0.0.1:0"),
                  lambda address: print(address, flush=True)))
"""


@contextmanager
def serving(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A planner's process, and where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    """What it logged until SIGTERM had stopped it."""
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    return errors


async def test_work_survives_the_planner_being_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, address):
        async with (
            Client(address) as client,
            Executor(address) as executor,
            asking(executor),
        ):
            queued = await client.create(queue=True, model="black-forest-labs/FLUX.1-schnell")
            running = await client.create(config=ADAPTIVE_CONFIG)
            run = await executor.start()
            await run.report(0, 3)
            await client.get(running.name)
            process.kill()

    with serving(tmp_path) as (process, address):
        async with Client(address) as client, Executor(address) as executor:
            again = await executor.attach(run.lease, run.assignment)
            await again.attached()
            await again.report(again.next_step, 6)
            await again.complete()
            ended = await client.ended(running.name)
            assert ended.state == generation_pb2.GENERATION_STATE_SUCCEEDED
            waiting = await client.get(queued.name)
            assert waiting.state == generation_pb2.GENERATION_STATE_QUEUED
        assert '"event": "generation_succeeded"' in stopped(process)


def test_logs_are_one_object_a_line_and_carry_the_request_id(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, address):
        with grpc.insecure_channel(address) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            request = create_request(queue=True, prompt="a secret wish")
            stub.CreateGeneration(request, metadata=(("x-request-id", "trace-me"),))
        errors = stopped(process)
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    [queued] = [line for line in lines if line["event"] == "generation_queued"]
    assert queued["request_id"] == "trace-me"
    assert queued["plan_id"]
    assert "secret" not in errors, "prompts are not logged"


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, address), grpc.insecure_channel(address) as channel:
        # An idle health watch keeps the first signal's grace open.
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=2)
        assert process.returncode == -signal.SIGTERM


def test_a_bug_is_logged_without_what_was_asked_for() -> None:
    code = (
        "import sys; from planner.telemetry.logs import configure_logs; import structlog\n"
        "configure_logs()\n"
        "def handle(prompt):\n"
        "    raise KeyError('bug')\n"
        "try:\n"
        "    handle(sys.argv[1])\n"
        "except KeyError:\n"
        "    structlog.get_logger().exception('call_failed')\n"
    )
    command = [sys.executable, "-c", code, "a secret prompt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "KeyError" in done.stderr
    assert "handle" in done.stderr
    assert "secret" not in done.stderr
