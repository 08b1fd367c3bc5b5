"""``ditplan generate``: one picture, through a running service or one brought up for it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from ditplan.v1 import generation_pb2

from planner.cli.client import Client, Refusal, connect
from planner.cli.local import LocalServiceError, local_service
from planner.cli.outcome import REFUSED, fail, refused, succeeded
from planner.cli.plan_view import show_plan
from planner.cli.preview import InputError, find_model, look, read_config
from planner.cli.progress import RunProgress
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.diagnostics import has_errors
from planner.render.diagnostics import render_diagnostics
from planner.render.record import record_document, replay_program

MAX_RECORD_BYTES = 64 << 20
_FILE = click.Path(dir_okay=False, path_type=Path)
_SEEDS = click.IntRange(0, 2**64 - 1)
# A ready executor asks for work at once; it is given this long.
_DIAL_SECONDS = 15.0


@click.command()
@click.option("--model", metavar="NAME_OR_DIR", help="Checkpoint directory or served name.")
@click.option("--config", type=click.Path(), help="Acceleration YAML, or - for standard input.")
@click.option("--replay", type=_FILE, help="Do again what this record says was done.")
@click.option("--prompt", help="What to draw.")
@click.option("--steps", type=int, help="Denoising steps.  [default: the config's or model's]")
@click.option("--seed", type=_SEEDS, help="Of the initial noise.  [default: random]")
@click.option("--height", type=int, help="Pixels.  [default: the model's]")
@click.option("--width", type=int, help="Pixels.  [default: the model's]")
@click.option("--guidance", type=float, help="Guidance scale.  [default: the model's]")
@click.option("--num-gpus", type=click.IntRange(1), default=1, show_default=True, help="Ranks.")
@click.option("--planner", metavar="HOST:PORT", help="Use this service instead of a local one.")
@click.option("--out", type=_FILE, default=Path("image.png"), show_default=True)
@click.option("--save-latents", type=_FILE, help="Keep the final latents (safetensors, fp32).")
@click.option("--record", type=_FILE, help="Keep the record of what was executed (JSON).")
def generate(
    model: str | None,
    config: str | None,
    replay: Path | None,
    prompt: str | None,
    steps: int | None,
    seed: int | None,
    height: int | None,
    width: int | None,
    guidance: float | None,
    num_gpus: int,
    planner: str | None,
    out: Path,
    save_latents: Path | None,
    record: Path | None,
) -> None:
    """Generate a picture from a prompt, exactly as a plan says.

    With --planner a running service does it; without, a planner and an executor are brought up for
    this one run and stopped. The exit status is 1 when the run failed and 2 when the request was
    refused.
    """
    if config is not None and replay is not None:
        raise click.UsageError("--config and --replay exclude each other")
    if num_gpus > 1 and planner is None:
        raise click.UsageError("--num-gpus: multi-rank execution is not supported yet")
    for file in (out, save_latents, record):
        if file is not None and not file.absolute().parent.is_dir():
            raise click.UsageError(f"{file}: its directory does not exist")
    spec = _replayed_spec(replay) if replay is not None else generation_pb2.GenerationSpec()
    given = {
        "model": _absolute(model),
        "prompt": prompt,
        "num_inference_steps": steps,
        "seed": seed,
        "height": height,
        "width": width,
        "guidance_scale": guidance,
    }
    try:
        for name, value in given.items():
            if value is not None:
                setattr(spec, name, value)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for name in ("model", "prompt"):
        if not getattr(spec, name):
            raise click.UsageError(f"Missing option '--{name}'.")
    spec.save_latents = save_latents is not None
    source = ""
    if config is not None:
        source = _config_text(config)
        spec.config = source
    shown_name = "<stdin>" if config == "-" else config or ""
    if planner is None:
        _check_locally(spec, source, shown_name, num_gpus)
    try:
        with _client(planner, spec.model) as client:
            finished = _run(client, spec, source, shown_name)
            artifacts = {a.name: client.read(finished.name, a) for a in finished.artifacts}
    except Refusal as refusal:
        refused(refusal)
    except LocalServiceError as error:
        fail(str(error))
    _keep(out, artifacts["image.png"])
    if save_latents is not None:
        _keep(save_latents, artifacts["latents.safetensors"])
    document = record_document(finished)
    if record is not None:
        _keep(record, (json.dumps(document, indent=1) + "\n").encode())
    click.echo(
        f"{out}: seed {finished.spec.seed}, {document['computed_steps']} of "
        f"{len(document['steps'])} steps computed, {document['denoise_seconds']:.2f} s denoising, "
        f"plan {finished.plan.plan_id[:12]}"
    )


def _run(
    client: Client, spec: generation_pb2.GenerationSpec, source: str, source_name: str
) -> generation_pb2.Generation:
    """The finished generation; ends the command if it did not succeed."""

    def shown() -> Iterator[generation_pb2.GenerationEvent]:
        for event in _events(client, spec):
            if event.HasField("planned"):
                show_plan(event.planned, model=spec.model, source=source, name=source_name)
            yield event

    with RunProgress() as progress:
        return succeeded(progress.follow("denoising", shown()))


def _events(
    client: Client, spec: generation_pb2.GenerationSpec
) -> Iterator[generation_pb2.GenerationEvent]:
    """The events of the run, tried again while the executor has yet to ask for work."""
    deadline = time.monotonic() + _DIAL_SECONDS
    while True:
        try:
            yield from client.generate(spec)
            return
        except Refusal as refusal:
            if refusal.reason != "NO_MATCHING_EXECUTOR" or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@contextmanager
def _client(planner: str | None, model: str) -> Iterator[Client]:
    if planner is not None:
        with connect(planner) as client:
            yield client
        return
    waiting = lambda what: click.echo(f"starting the {what} ...", err=True)  # noqa: E731
    with local_service(model, waiting=waiting) as address, connect(address) as client:
        yield client


def _check_locally(
    spec: generation_pb2.GenerationSpec, source: str, source_name: str, num_gpus: int
) -> None:
    """Says what is wrong with the request before anything is brought up for it."""
    if spec.HasField("program"):
        return
    try:
        facts = find_model(spec.model)
    except InputError as error:
        raise click.UsageError(error.diagnostic.message) from None
    optional = {
        name: getattr(spec, name)
        for name in ("num_inference_steps", "height", "width", "guidance_scale")
        if spec.HasField(name)
    }
    compilation = compile_config(source, facts, Request(world_size=num_gpus, **optional))
    if has_errors(compilation.diagnostics):
        text = render_diagnostics(
            compilation.diagnostics, source=source, source_name=source_name, **look(sys.stderr)
        )
        click.echo(text, err=True, nl=False)
        sys.exit(REFUSED)


def _absolute(model: str | None) -> str | None:
    """A directory by its absolute path, which is how executors serve it; a name as it is."""
    return str(Path(model).resolve()) if model and Path(model).is_dir() else model


def _config_text(path: str) -> str:
    try:
        return read_config(path).decode()
    except InputError as error:
        raise click.UsageError(error.diagnostic.message) from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{path}: is not UTF-8 text") from None


def _replayed_spec(path: Path) -> generation_pb2.GenerationSpec:
    """What a record says was asked for, with the program that was executed."""
    try:
        with path.open("rb") as file:
            document: Any = json.loads(file.read(MAX_RECORD_BYTES))
        program = replay_program(document)
        spec = generation_pb2.GenerationSpec(program=program, **document.get("spec", {}))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise click.UsageError(f"{path}: {error}") from None
    return spec


def _keep(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
