"""What the executor's options are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2
from google.protobuf.message import DecodeError

from executor.agent.settings import Size

MOST_PLAN_BYTES = 4 << 20
MOST_SIZES = 16
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})(?:x([1-9]\d{0,3}))?")

F = TypeVar("F", bound=Callable[..., Any])


def boolean(*names: str, help: str) -> Callable[[F], F]:
    """An option that is on by its name alone and takes true and false, as SGLang's do."""
    return click.option(
        *names,
        type=bool,
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help=help,
    )


class PlanFile(click.ParamType):  # type: ignore[type-arg]
    """The program of a plan in a file."""

    name = "file"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> plan_pb2.Program:
        if isinstance(value, plan_pb2.Program):
            return value
        try:
            with open(value, "rb") as file:
                data = file.read(MOST_PLAN_BYTES + 1)
            plan = plan_pb2.Plan.FromString(data[:MOST_PLAN_BYTES])
        except OSError as error:
            self.fail(f"{value}: {error.strerror}", parameter, context)
        except DecodeError:
            self.fail(f"{value} holds no plan", parameter, context)
        if len(data) > MOST_PLAN_BYTES or not plan.HasField("program"):
            self.fail(f"{value} holds no plan", parameter, context)
        if plan_id(plan.program) != plan.plan_id:
            self.fail(f"{value} was damaged or edited", parameter, context)
        return plan.program


class Sizes(click.ParamType):  # type: ignore[type-arg]
    """WIDTHxHEIGHT or WIDTHxHEIGHTxFRAMES, several with commas between them."""

    name = "sizes"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[Size, ...]:
        if not isinstance(value, str):
            return tuple(value)
        found = []
        for text in value.split(","):
            match = _SIZE.fullmatch(text.strip())
            if match is None:
                self.fail(
                    f"{text!r} is not WIDTHxHEIGHT or WIDTHxHEIGHTxFRAMES", parameter, context
                )
            width, height, frames = match.groups()
            found.append(Size(int(width), int(height), int(frames) if frames else None))
        if len(found) > MOST_SIZES:
            self.fail(f"{len(found)} sizes are more than {MOST_SIZES}", parameter, context)
        return tuple(dict.fromkeys(found))


SIZES = Sizes()
