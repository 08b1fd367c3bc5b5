"""What the arguments of a command stand for: a config's text, a model's facts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO, Any

import click

from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.config.document import MAX_CONFIG_BYTES
from planner.diagnostics import Diagnostic, Severity
from planner.models.facts import ModelFacts
from planner.models.resolve import UnknownModelError, from_directory, from_name

STDIN = "-"
PLAN_SUFFIX = ".binpb"


class InputError(click.ClickException):
    """An argument that cannot be used, as a diagnostic; unless caught, it ends the command."""

    exit_code = 2

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.diagnostic = Diagnostic(Severity.ERROR, code, field, message)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.message}", err=True)


def is_plan_file(path: str) -> bool:
    return path.endswith(PLAN_SUFFIX)


def config_name(config: str | None) -> str:
    """What to call a config argument in a diagnostic."""
    return "<stdin>" if config == STDIN else click.format_filename(config or "")


def read_config(path: str) -> bytes:
    """The config at a path, ``-`` for standard input; one byte too many of one that is too large.

    An empty path is an empty config: SGLANG_CACHE_DIT variables alone.

    Raises:
        InputError: it cannot be read, or is a plan.
    """
    if not path:
        return b""
    if is_plan_file(path):
        raise InputError("unreadable-config", "config", f"{path}: is a plan, not a config")
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise OSError("standard input is closed")
            return sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1)
        with open(path, "rb") as file:
            return file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise InputError("unreadable-config", "config", message) from None


def find_model(model: str) -> ModelFacts:
    """The facts of a checkpoint directory, or else of a published name.

    Raises:
        InputError: it is neither.
    """
    try:
        return from_directory(Path(model)) if os.path.isdir(model) else from_name(model)
    except (UnknownModelError, OSError) as error:
        raise InputError("unknown-model", "model", str(error)) from None


def compile_inputs(config: str, model: str, request: Request) -> tuple[Compilation, str]:
    """Compiles a config argument for a model argument; the text that was read comes with it.

    What cannot be read or found is a diagnostic of the compilation.
    """
    diagnostics: list[Diagnostic] = []
    data, facts = b"", None
    try:
        data = read_config(config)
    except InputError as error:
        diagnostics.append(error.diagnostic)
    try:
        facts = find_model(model)
    except InputError as error:
        diagnostics.append(error.diagnostic)
    source = data.decode("utf-8", "replace")
    if facts is None or diagnostics:
        return Compilation(None, None, request, tuple(diagnostics)), source
    return compile_config(data, facts, request, os.environ), source


def plan_id_of(compilation: Compilation) -> str | None:
    """None where there is no plan."""
    if compilation.program is None or compilation.estimate is None:
        return None
    # Only now: where there is no plan, nobody waits for protobuf.
    from planner.codec import plan_to_proto

    return plan_to_proto(compilation.program, compilation.estimate).plan_id
