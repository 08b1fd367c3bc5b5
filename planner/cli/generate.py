"""``ditplan generate``: one picture, through a running service or one brought up for it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
from ditplan.common.connection import PLAIN, Connection, ConnectionOptionsError
from ditplan.common.connection_options import connection_options
from ditplan.v1 import generation_pb2

from planner.cli.client import Client, Refusal, connect
from planner.cli.generation_spec import generation_spec
from planner.cli.inputs import config_name, find_model
from planner.cli.local import LocalServiceError
from planner.cli.local_client import local_client
from planner.cli.options import executor_options
from planner.cli.outcome import REFUSED, fail, refused, succeeded
from planner.cli.plan_file import check_program
from planner.cli.plan_view import show_plan
from planner.cli.progress import RunProgress
from planner.cli.result_files import check_writable, image_format, keep
from planner.cli.terminal import report
from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.config.environment import effective_text
from planner.config.variables import PREFIX
from planner.diagnostics import has_errors
from planner.render.record import record_document

_FILE = click.Path(dir_okay=False, path_type=Path)
_SEEDS = click.IntRange(0, 2**64 - 1)
# A ready executor asks for work at once; it is given this long.
_DIAL_SECONDS = 15.0


@click.command()
@click.option("--model", metavar="NAME_OR_DIR", help="Checkpoint directory or served name.")
@click.option("--config", type=click.Path(), help="Acceleration YAML, or - for standard input.")
@click.option("--plan", metavar="FILE", help="A plan that `ditplan compile` wrote.")
@click.option("--replay", type=_FILE, help="Do again what this record says was done.")
@click.option("--prompt", help="What to draw.")
@click.option("--steps", type=int, help="Denoising steps.  [default: the config's or model's]")
@click.option("--seed", type=_SEEDS, help="Of the initial noise.  [default: random]")
@click.option("--height", type=int, help="Pixels.  [default: the model's]")
@click.option("--width", type=int, help="Pixels.  [default: the model's]")
@click.option("--frames", type=int, help="Of a film.  [default: the model's]")
@click.option("--fps", type=int, help="Frames a second of a film.  [default: the model's]")
@click.option("--guidance", type=float, help="Guidance scale.  [default: the model's]")
@click.option("--negative-prompt", help="What guidance leads away from.")
@click.option("--image", type=_FILE, multiple=True, help="A picture that the run starts from.")
@click.option("--num-gpus", type=click.IntRange(1), help="Ranks of a local run.  [default: 1]")
@executor_options
@click.option("--planner", metavar="HOST:PORT", help="Use this service instead of a local one.")
@connection_options
@click.option("--queue", is_flag=True, help="Wait where no executor of --planner can run it yet.")
@click.option("--out", type=_FILE, help="*.webp: as WebP.  [default: image.png, or video.mp4]")
@click.option("--save-latents", type=_FILE, help="Keep the final latents (safetensors, fp32).")
@click.option("--record", type=_FILE, help="Keep the record of what was executed (JSON).")
def generate(
    model: str | None,
    config: str | None,
    plan: str | None,
    replay: Path | None,
    prompt: str | None,
    steps: int | None,
    seed: int | None,
    height: int | None,
    width: int | None,
    frames: int | None,
    fps: int | None,
    guidance: float | None,
    negative_prompt: str | None,
    image: tuple[Path, ...],
    num_gpus: int | None,
    placement: tuple[str, ...],
    planner: str | None,
    connection: Connection,
    queue: bool,
    out: Path | None,
    save_latents: Path | None,
    record: Path | None,
) -> None:
    """Generate a picture or a film from a prompt, exactly as a plan says.

    With --planner a running service does it; without, a planner and an executor are brought up for
    this one run and stopped. The exit status is 1 when the run failed and 2 when the request was
    refused.
    """
    if planner is not None and (num_gpus is not None or placement):
        given = "--num-gpus" if num_gpus is not None else placement[0]
        text = f"{given} is for a local run; with --planner its executors decide"
        raise click.UsageError(text)
    if planner is None and replace(connection, token="") != PLAIN:
        raise click.UsageError("--tls-*, --token-file and --insecure go together with --planner")
    if planner is None and queue:
        raise click.UsageError("--queue goes together with --planner")
    for file in (out or Path("image.png"), save_latents, record):
        if file is not None:
            check_writable(file)
    spec = generation_spec(
        config=config,
        plan=plan,
        replay=replay,
        model=model,
        prompt=prompt,
        num_inference_steps=steps,
        seed=seed,
        height=height,
        width=width,
        num_frames=frames,
        fps=fps,
        guidance_scale=guidance,
        negative_prompt=negative_prompt,
        images=image,
        save_latents=save_latents is not None,
        image_format=None if out is None else image_format(out),
    )
    name = config_name(config)
    local = None if planner is not None else _check(spec, name, num_gpus or 1)
    name = _settle(spec, name)
    try:
        with _client(planner, connection, spec.model, local, placement) as client:
            finished = _run(client, spec, name, queue=queue)
            artifacts = {a.name: client.read(finished.name, a) for a in finished.artifacts}
    except Refusal as refusal:
        refused(refusal, source=spec.config, source_name=name)
    except ConnectionOptionsError as error:
        raise click.UsageError(str(error)) from None
    except LocalServiceError as error:
        fail(str(error))
    document = record_document(finished)
    made = next(name for name in ("video.mp4", "image.png", "image.webp") if name in artifacts)
    out = out or Path(made)
    if out.suffix.lower() != Path(made).suffix:
        click.echo(f"warning: {out} holds {Path(made).suffix[1:].upper()} data", err=True)
    results: dict[Path | None, bytes] = {
        out: artifacts[made],
        save_latents: artifacts.get("latents.safetensors", b""),
        record: (json.dumps(document, indent=1) + "\n").encode(),
    }
    keep({path: data for path, data in results.items() if path is not None})
    reload = f"{seconds:.2f} s loading, " if (seconds := document["reload_seconds"]) > 0 else ""
    click.echo(
        f"{out}: seed {finished.spec.seed}, {document['computed_steps']} of "
        f"{len(document['steps'])} steps computed, {document['denoise_seconds']:.2f} s denoising, "
        f"{reload}plan {finished.plan.plan_id[:12]}"
    )


def _run(
    client: Client, spec: generation_pb2.GenerationSpec, source_name: str, *, queue: bool
) -> generation_pb2.Generation:
    """The finished generation; ends the command if it did not succeed."""

    def shown() -> Iterator[generation_pb2.GenerationEvent]:
        for event in _events(client, spec, queue=queue):
            if event.HasField("planned"):
                show_plan(event.planned, model=spec.model, source=spec.config, name=source_name)
            yield event

    with RunProgress() as progress:
        return succeeded(progress.follow("denoising", shown()))


def _events(
    client: Client, spec: generation_pb2.GenerationSpec, *, queue: bool
) -> Iterator[generation_pb2.GenerationEvent]:
    """The events of the run, tried again while the executor has yet to ask for work."""
    deadline = time.monotonic() + _DIAL_SECONDS
    while True:
        try:
            yield from client.generate(spec, queue=queue)
            return
        except Refusal as refusal:
            if refusal.reason != "NO_MATCHING_EXECUTOR" or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@contextmanager
def _client(
    planner: str | None,
    connection: Connection,
    model: str,
    local: Compilation | None,
    placement: tuple[str, ...],
) -> Iterator[Client]:
    """Of the planner at an address, or of one that is brought up for what was compiled here."""
    if planner is not None:
        with connect(planner, connection) as client:
            yield client
        return
    assert local is not None
    with local_client(model, local, placement) as client:
        yield client


def _check(spec: generation_pb2.GenerationSpec, source_name: str, world_size: int) -> Compilation:
    """The plan of a local run; says what is wrong with a request before it is brought up."""
    facts = find_model(spec.model)
    asked = ("num_inference_steps", "height", "width", "num_frames", "guidance_scale")
    given = {field.name: value for field, value in spec.ListFields() if field.name in asked}
    given["negative_prompt"] = spec.HasField("negative_prompt")
    request = Request(world_size=world_size, **given)
    if spec.HasField("program"):
        compilation = check_program(spec.program, facts, request)
    else:
        compilation = compile_config(spec.config, facts, request, os.environ)
    if compilation.program is None:
        report(compilation.diagnostics, source=spec.config, source_name=source_name)
        sys.exit(REFUSED)
    return compilation


def _settle(spec: generation_pb2.GenerationSpec, source_name: str) -> str:
    """Makes the config say what variables of this process add to it; the value is its name then.

    No planner reads its own variables for the requests of others.
    """
    if spec.HasField("program"):
        return source_name
    text, found = effective_text(spec.config, os.environ)
    report(found, source=spec.config, source_name=source_name)
    if has_errors(found):
        sys.exit(REFUSED)
    if text == spec.config:
        return source_name
    spec.config = text
    return f"{source_name or 'no config'} with {PREFIX}*"
