"""How a generation ended, for the person who waits for it."""

from __future__ import annotations

import sys
from typing import NoReturn

import click
from ditplan.v1 import generation_pb2

from planner.cli.client import Refusal

FAILED, REFUSED = 1, 2


def succeeded(finished: generation_pb2.Generation | None) -> generation_pb2.Generation:
    """The generation, if it succeeded; else the command ends with the reason."""
    if finished is None:
        fail("the planner ended the call before the run had ended")
    if finished.state != generation_pb2.GENERATION_STATE_SUCCEEDED:
        fail(f"{finished.failure.code}: {finished.failure.message}")
    return finished


def refused(refusal: Refusal) -> NoReturn:
    """Ends the command with everything that the planner found wrong."""
    lines = [f"  {field}: {description}" for field, description in refusal.faults]
    fail("\n".join([str(refusal), *lines]), status=REFUSED)


def fail(message: str, status: int = FAILED) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(status)
