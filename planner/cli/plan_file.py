"""A plan as a file: the message of the contract, to be stored, reviewed, signed, run later."""

from __future__ import annotations

from pathlib import Path

import click
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2
from google.protobuf.message import DecodeError

from planner.codec import MalformedProgramError, program_from_proto
from planner.compile.compiler import Compilation, compile_program
from planner.compile.request import Request
from planner.models.facts import ModelFacts

MAX_PLAN_BYTES = 4 << 20


def read_plan(path: str) -> plan_pb2.Plan:
    """The plan in a file.

    Raises:
        click.UsageError: there is none, or its id is not the one of its program.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PLAN_BYTES + 1)
        if len(data) > MAX_PLAN_BYTES:
            raise click.UsageError(f"{path}: has more than {MAX_PLAN_BYTES} bytes")
        plan = plan_pb2.Plan.FromString(data)
    except (OSError, DecodeError) as error:
        raise click.UsageError(f"{path}: holds no plan: {error}") from None
    if not plan.HasField("program"):
        raise click.UsageError(f"{path}: holds no plan")
    if plan_id(plan.program) != plan.plan_id:
        raise click.UsageError(
            f"{path}: its program has the id {plan_id(plan.program)}, not {plan.plan_id}: "
            "the file was damaged or edited"
        )
    return plan


def check_plan(path: str, facts: ModelFacts, request: Request) -> Compilation:
    """The plan in a file as if it had just been compiled for the model and the request.

    Raises:
        click.UsageError: there is none, or it is for another architecture.
    """
    try:
        program = program_from_proto(read_plan(path).program, facts.architecture)
    except MalformedProgramError as error:
        raise click.UsageError(f"{path}: {error}") from None
    return compile_program(program, facts, request)


def write_plan(path: Path, plan: plan_pb2.Plan) -> None:
    try:
        path.write_bytes(plan.SerializeToString(deterministic=True))
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from None
