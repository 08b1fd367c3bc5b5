"""``ditplan top``: what a planner and its executors are doing, as it changes."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
import grpc
from ditplan.common.connection import Connection, ConnectionOptionsError
from ditplan.common.connection_options import connection_options
from ditplan.v1 import monitor_pb2, monitor_pb2_grpc
from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.live import Live

from planner.cli.client import CALL_SECONDS, RETRY_SECONDS, Refusal, refusal_of
from planner.cli.options import FORMATS, planner_option
from planner.cli.outcome import refused
from planner.cli.signals import leaving_on
from planner.cli.terminal import Look, look
from planner.cli.top_view import ago, frame
from planner.render.canvas import Canvas

# A planner that was stopped, or a cable that was pulled, is noticed after the sum of the two.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    # Else a planner that comes back is tried after up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# Not cut off where no terminal says how wide it is; tables take what they need.
_UNBOUNDED = 1000
# Beside the rows of the three tables: heads, and what is left out.
_OTHER_LINES = 12

Status = monitor_pb2.WatchStatusResponse


@click.command()
@planner_option
@connection_options
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Show one look and end; so it is off a terminal.")
@click.option("--format", "form", type=FORMATS, default="text", help="json: one look, as data.")
def top(planner: str, connection: Connection, interval: float, once: bool, form: str) -> None:
    """Show queue, executors and running steps of a planner until Ctrl-C.

    Where the planner asks for tokens, it has to be that of an administrator. The exit status is 2
    when the planner refuses the call or cannot be reached at first.
    """
    shape = look(sys.stdout)
    once = once or form == "json" or not sys.stdout.isatty()
    try:
        with connection.open(planner, _KEEPALIVE) as channel:
            stub = monitor_pb2_grpc.MonitorServiceStub(channel)
            if once:
                _show_once(_look(stub), planner, shape, form)
            else:
                _follow(stub, planner, interval, shape)
    except ConnectionOptionsError as error:
        raise click.UsageError(str(error)) from None
    except Refusal as refusal:
        refused(refusal)
    except KeyboardInterrupt:
        sys.exit(0)


def _look(stub: monitor_pb2_grpc.MonitorServiceStub) -> Status:
    # Not one that was taken for somebody else a second ago.
    request = monitor_pb2.WatchStatusRequest(once=True, interval_seconds=0.1)
    try:
        return next(iter(stub.WatchStatus(request, timeout=CALL_SECONDS)))
    except grpc.RpcError as error:
        raise refusal_of(error) from None


def _show_once(status: Status, address: str, shape: Look, form: str) -> None:
    if form == "json":
        document = MessageToDict(
            status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        click.echo(json.dumps(document, indent=2))
        return
    terminal = sys.stdout.isatty()
    console = Console(
        width=shape["width"] if terminal else _UNBOUNDED,
        color_system="auto" if shape["color"] else None,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(frame(status, address, Canvas(ascii=shape["ascii"])))
    # Tables fill up their last column.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _follow(
    stub: monitor_pb2_grpc.MonitorServiceStub, address: str, interval: float, shape: Look
) -> None:
    """Ends by Ctrl-C, or when the planner refuses."""
    canvas = Canvas(ascii=shape["ascii"])
    console = Console(no_color=not shape["color"], highlight=False)
    first = _look(stub)
    with leaving_on(signal.SIGTERM), Live(console=console, screen=True, auto_refresh=False) as live:
        for status, note in _statuses(stub, first, interval):
            rows = max(3, (shutil.get_terminal_size().lines - _OTHER_LINES) // 3)
            live.update(frame(status, address, canvas, note=note, rows=rows), refresh=True)


def _statuses(
    stub: monitor_pb2_grpc.MonitorServiceStub, last: Status, interval: float
) -> Iterator[tuple[Status, str]]:
    """Every status, and while there are none the last, with a note that says why."""
    yield last, ""
    request = monitor_pb2.WatchStatusRequest(interval_seconds=interval)
    heard = time.monotonic()
    while True:
        call: Any = stub.WatchStatus(request)
        try:
            for last in call:
                heard = time.monotonic()
                yield last, ""
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            if refusal.code not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            ):
                raise refusal from None
            yield last, f"nothing new for {ago(time.monotonic() - heard)}: {refusal}; trying again"
        finally:
            call.cancel()
        time.sleep(RETRY_SECONDS)
