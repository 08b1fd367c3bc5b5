"""The planner's log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from ditplan.dispatch.v1 import dispatch_pb2

from planner.service.server import Settings
from planner.telemetry.logs import configure_logs
from tests.planner.service.planners import connected


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers, logging.root.level
    yield
    logging.root.handlers, logging.root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _fail(prompt: str) -> None:
    raise ValueError("no such luck")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_traceback_shows_no_prompt(stream: io.StringIO) -> None:
    configure_logs(stream)
    prompt = " ".join(["a", "secret", "garden"])
    try:
        _fail(prompt)
    except ValueError:
        structlog.get_logger("planner").exception("call_failed")
    written = stream.getvalue()
    assert "no such luck" in written
    assert "_fail" in written
    assert prompt not in written


def test_warnings_of_libraries_are_objects_too() -> None:
    stream = io.StringIO()
    configure_logs(stream)
    logging.getLogger("some.library").warning("mind the %s", "gap")
    logging.getLogger("some.library").info("not worth a line")
    [line] = _lines(stream)
    assert (line["event"], line["level"]) == ("mind the gap", "warning")


def test_below_the_level_nothing_is_logged() -> None:
    stream = io.StringIO()
    configure_logs(stream, "warning")
    log = structlog.get_logger("planner")
    log.info("not_told")
    log.warning("told")
    assert [line["event"] for line in _lines(stream)] == ["told"]


async def test_a_refused_executor_is_named_with_the_work_that_it_asked_for(
    settings: Settings,
) -> None:
    stream = io.StringIO()
    async with connected(settings) as (client, executor):
        configure_logs(stream)
        created = await client.create()
        lease = await executor.leased()
        stale = dispatch_pb2.Lease(generation=lease.generation, epoch=lease.epoch + 1)
        refusal = await (await executor.attach(stale)).refusal()
    assert refusal.code is grpc.StatusCode.ABORTED
    [line] = [line for line in _lines(stream) if line["event"] == "call_refused"]
    assert line["method"] == "/ditplan.dispatch.v1.DispatchService/RunLease"
    assert f"generations/{line['generation']}" == created.name
    assert (line["executor"], line["epoch"]) == ("exec-1", 2)
