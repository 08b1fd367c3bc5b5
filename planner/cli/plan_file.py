"""A plan as a file: the message of the contract, to be stored, reviewed, signed, run later."""

from __future__ import annotations

import click
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2
from google.protobuf.message import DecodeError

from planner.cli.inputs import InputError
from planner.codec import MalformedProgramError, program_from_proto
from planner.compile.compiler import Compilation, compile_program
from planner.compile.request import Request
from planner.models.facts import ModelFacts

MAX_PLAN_BYTES = 4 << 20


def read_plan(path: str) -> plan_pb2.Plan:
    """The plan in a file.

    Raises:
        InputError: there is none, or its id is not the one of its program.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PLAN_BYTES + 1)
        if len(data) > MAX_PLAN_BYTES:
            raise _unusable(path, f"has more than {MAX_PLAN_BYTES} bytes")
        plan = plan_pb2.Plan.FromString(data)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    except DecodeError:
        raise _unusable(path, "holds no plan") from None
    if not plan.HasField("program"):
        raise _unusable(path, "holds no plan")
    if plan_id(plan.program) != plan.plan_id:
        raise _unusable(
            path,
            f"its program has the id {plan_id(plan.program)}, not {plan.plan_id}: "
            "the file was damaged or edited",
        )
    return plan


def check_plan(path: str, facts: ModelFacts, request: Request) -> Compilation:
    """The plan in a file as if it had just been compiled for the model and the request.

    Its estimate is made anew: the id does not vouch for the one in the file.

    Raises:
        InputError: there is none, or it is for another architecture.
    """
    return check_program(read_plan(path).program, facts, request, path)


def check_program(
    message: plan_pb2.Program, facts: ModelFacts, request: Request, name: str = "the plan"
) -> Compilation:
    """The same for a program that was read before, from what goes by the ``name``."""
    try:
        program = program_from_proto(message, facts.architecture)
    except MalformedProgramError as error:
        raise _unusable(name, str(error)) from None
    return compile_program(program, facts, request)


def write_plan(path: str, plan: plan_pb2.Plan) -> None:
    """Writes to the file, ``-`` for standard output."""
    try:
        with click.open_file(path, "wb") as file:
            file.write(plan.SerializeToString(deterministic=True))
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from None


def _unusable(path: str, fault: str) -> InputError:
    return InputError("unusable-plan", "config", f"{path}: {fault}")
