"""How a generation ended, for the person who waits for it."""

from __future__ import annotations

import sys
from typing import NoReturn

import click
from ditplan.v1 import generation_pb2

from planner.cli.client import Refusal
from planner.cli.terminal import report
from planner.diagnostics import Severity

FAILED, REFUSED = 1, 2


def succeeded(finished: generation_pb2.Generation | None) -> generation_pb2.Generation:
    """The generation, if it succeeded; else the command ends with the reason."""
    if finished is None:
        fail("the planner ended the call before the run had ended")
    if finished.state != generation_pb2.GENERATION_STATE_SUCCEEDED:
        fail(f"{finished.failure.code}: {finished.failure.message}")
    return finished


def refused(refusal: Refusal, *, source: str = "", source_name: str = "") -> NoReturn:
    """Ends the command with everything that the planner found wrong, shown in the config."""
    shown = sum(d.severity is Severity.ERROR for d in refusal.diagnostics)
    lines = [f"  {field}: {text}" if field else f"  {text}" for field, text in refusal.faults]
    if shown:
        report(refusal.diagnostics, source=source, source_name=source_name)
        click.echo("".join(f"{line}\n" for line in lines[shown:]), err=True, nl=False)
        sys.exit(REFUSED)
    fail("\n".join([str(refusal), *lines]), status=REFUSED)


def fail(message: str, status: int = FAILED) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(status)
