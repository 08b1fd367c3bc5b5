"""A received plan on standard output."""

from __future__ import annotations

import sys

import click
import grpc
from ditplan.v1 import generation_pb2

from planner.cli.client import Refusal
from planner.cli.terminal import look
from planner.codec import (
    MalformedProgramError,
    diagnostics_from_proto,
    estimate_from_proto,
    received_program,
)
from planner.compile.compiler import Compilation
from planner.compile.request import Request
from planner.render.text import render_text


def show_plan(planned: generation_pb2.Planned, *, model: str, source: str, name: str) -> None:
    """Prints the plan that a planner compiled; ``source`` is the config, ``name`` its file.

    Raises:
        Refusal: the plan cannot be read.
    """
    try:
        program = received_program(planned.plan.program)
    except MalformedProgramError as error:
        raise Refusal(grpc.StatusCode.DATA_LOSS, f"the plan cannot be read: {error}") from None
    compilation = Compilation(
        program,
        estimate_from_proto(planned.plan.estimate),
        Request(program.num_inference_steps, program.topology.world_size),
        tuple(diagnostics_from_proto(planned.diagnostics)),
    )
    text = render_text(
        compilation,
        planned.plan.plan_id,
        source=source,
        source_name=name,
        model=model,
        **look(sys.stdout),
    )
    click.echo(text)
