"""What ``ditplan generate`` asks a planner for, from options or from an earlier run's record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from ditplan.v1 import generation_pb2

from planner.cli.inputs import InputError, read_config
from planner.cli.plan_file import read_plan
from planner.render.record import replay_program
from planner.settings import Limits

MAX_RECORD_BYTES = 64 << 20
MAX_IMAGE_BYTES = Limits().picture_bytes


def generation_spec(
    *,
    config: str | None,
    plan: str | None,
    replay: Path | None,
    images: Sequence[Path] = (),
    **given: Any,
) -> generation_pb2.GenerationSpec:
    """The spec that the options make. Those given win over what a replayed record says.

    Args:
        config: path of the acceleration config, or ``-``.
        plan: path of a plan file.
        replay: path of a record.
        images: the pictures that the run starts from.
        given: fields of the spec; None where an option was left out.

    Raises:
        InputError: a file cannot be used.
        click.UsageError: an option cannot be used, or a required one is missing.
    """
    if sum(source is not None for source in (config, plan, replay)) > 1:
        raise click.UsageError("--config, --plan and --replay exclude each other")
    spec = _recorded(replay) if replay is not None else generation_pb2.GenerationSpec()
    if config is not None:
        spec.config = _text(config)
    if plan is not None:
        spec.program.CopyFrom(read_plan(plan).program)
    _add_images(spec, images)
    given["model"] = absolute(given["model"])
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


def _add_images(spec: generation_pb2.GenerationSpec, paths: Sequence[Path]) -> None:
    """The data of pictures; those of a replayed record have to be the same ones."""
    if spec.images and len(paths) != len(spec.images):
        raise click.UsageError(
            f"the record's run started from {len(spec.images)} picture(s): give each by --image"
        )
    for i, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise click.UsageError(f"{path}: {error.strerror}") from None
        if len(data) > MAX_IMAGE_BYTES:
            raise click.UsageError(f"{path}: has more than {MAX_IMAGE_BYTES} bytes")
        if i == len(spec.images):
            spec.images.add()
        elif spec.images[i].sha256 != hashlib.sha256(data).hexdigest():
            raise click.UsageError(f"{path}: is not the picture that the record's run started from")
        spec.images[i].data = data


def absolute(model: str | None) -> str | None:
    """A directory by its absolute path, which is how executors serve it; a name as it is."""
    return str(Path(model).resolve()) if model and Path(model).is_dir() else model


def _text(config: str) -> str:
    try:
        return read_config(config).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("unreadable-config", "config", f"{config}: is not UTF-8 text") from None


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
    except OSError as error:
        raise InputError("unusable-record", "replay", f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError("unusable-record", "replay", f"{path}: {error}") from None


def _fill(spec: generation_pb2.GenerationSpec, recorded: Any) -> None:
    if not isinstance(recorded, dict):
        raise ValueError("spec: is no mapping")
    for name, value in recorded.items():
        if name in ("config", "program"):
            # Another source of the plan would take the place of the recorded steps.
            raise ValueError(f"spec.{name}: has no place in a record, whose steps are the plan")
        try:
            if name == "images":
                # Which pictures they were; they themselves come by --image.
                spec.images.extend(generation_pb2.InputImage(sha256=each) for each in value)
            else:
                setattr(spec, name, value)
        except AttributeError:
            raise ValueError(f"spec.{name}: is unknown") from None
        except (TypeError, ValueError):
            raise ValueError(f"spec.{name}: {repr(value)[:80]} is not allowed") from None
