"""What ``ditplan generate`` asks a planner for, from options or from an earlier run's record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from ditplan.v1 import generation_pb2

from planner.cli.inputs import InputError, read_config
from planner.cli.plan_file import read_plan
from planner.render.record import replay_program

MAX_RECORD_BYTES = 64 << 20


def generation_spec(
    *, config: str | None, plan: str | None, replay: Path | None, **given: Any
) -> generation_pb2.GenerationSpec:
    """The spec that the options make. Those given win over what a replayed record says.

    Args:
        config: path of the acceleration config, or ``-``.
        plan: path of a plan file.
        replay: path of a record.
        given: fields of the spec; None where an option was left out.

    Raises:
        click.UsageError: an option cannot be used, or a required one is missing.
    """
    if sum(source is not None for source in (config, plan, replay)) > 1:
        raise click.UsageError("--config, --plan and --replay exclude each other")
    spec = _recorded(replay) if replay is not None else generation_pb2.GenerationSpec()
    if config is not None:
        spec.config = _text(config)
    if plan is not None:
        spec.program.CopyFrom(read_plan(plan).program)
    given["model"] = _absolute(given["model"])
    for name, value in given.items():
        if value is None:
            continue
        try:
            setattr(spec, name, value)
        except (ValueError, TypeError) as error:
            raise click.UsageError(f"{name}: {error}") from None
    for name in ("model", "prompt"):
        if not getattr(spec, name):
            raise click.UsageError(f"Missing option '--{name}'.")
    return spec


def _absolute(model: str | None) -> str | None:
    """A directory by its absolute path, which is how executors serve it; a name as it is."""
    return str(Path(model).resolve()) if model and Path(model).is_dir() else model


def _text(config: str) -> str:
    try:
        return read_config(config).decode("utf-8-sig")
    except InputError as error:
        raise click.UsageError(error.diagnostic.message) from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{config}: is not UTF-8 text") from None


def _recorded(path: Path) -> generation_pb2.GenerationSpec:
    """What a record says was asked for, with the program that was executed."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            raise ValueError(f"has more than {MAX_RECORD_BYTES} bytes")
        document: Any = json.loads(data)
        spec = generation_pb2.GenerationSpec(program=replay_program(document))
        _fill(spec, document.get("spec"))
        return spec
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{path}: {error}") from None


def _fill(spec: generation_pb2.GenerationSpec, recorded: Any) -> None:
    if not isinstance(recorded, dict):
        raise ValueError("spec: is no mapping")
    for name, value in recorded.items():
        if name in ("config", "program"):
            # Another source of the plan would take the place of the recorded steps.
            raise ValueError(f"spec.{name}: has no place in a record, whose steps are the plan")
        try:
            setattr(spec, name, value)
        except AttributeError:
            raise ValueError(f"spec.{name}: is unknown") from None
        except (TypeError, ValueError):
            raise ValueError(f"spec.{name}: {repr(value)[:80]} is not allowed") from None
