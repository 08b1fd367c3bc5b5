"""``ditplan preview``: what a config would compute, shown before anything runs."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
from pathlib import Path
from typing import TextIO, TypedDict

import click

from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.config.document import MAX_CONFIG_BYTES
from planner.diagnostics import Diagnostic, Severity, has_errors
from planner.models.facts import ModelFacts
from planner.models.resolve import UnknownModelError, from_directory, from_name
from planner.render.diagnostics import render_diagnostics

STDIN = "-"
_FORMATS = click.Choice(["text", "json", "svg"])
_PAGE_WIDTH = 80


class InputError(Exception):
    """An argument that cannot be used, as a diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def read_config(path: str) -> bytes:
    """The config at a path, ``-`` for standard input; one byte too many of one that is too large.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise OSError("standard input is closed")
            return sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1)
        with open(path, "rb") as file:
            return file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise InputError(_error("unreadable-config", "config", message)) from None


def find_model(model: str) -> ModelFacts:
    """The facts of a checkpoint directory, or else of a published name.

    Raises:
        InputError: it is neither.
    """
    try:
        return from_directory(Path(model)) if os.path.isdir(model) else from_name(model)
    except (UnknownModelError, OSError) as error:
        raise InputError(_error("unknown-model", "model", str(error))) from None


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
    return compile_config(data, facts, request), source


class Look(TypedDict):
    """How a stream wants its text; keyword arguments of the text renderings."""

    width: int
    color: bool
    ascii: bool


def look(stream: TextIO | None) -> Look:
    """Colour on a terminal that wants it, signs beyond ASCII where the encoding has them."""
    if stream is None:
        return Look(width=_PAGE_WIDTH, color=False, ascii=False)
    terminal = stream.isatty()
    return Look(
        width=shutil.get_terminal_size((_PAGE_WIDTH, 24)).columns if terminal else _PAGE_WIDTH,
        color=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii=not codecs.lookup(stream.encoding or "ascii").name.startswith("utf"),
    )


@click.command()
@click.argument("config")
@click.option("--model", required=True, metavar="NAME_OR_DIR", help="Published name or checkpoint.")
@click.option("--steps", type=int, help="Denoising steps.  [default: the model's]")
@click.option("--gpus", type=int, help="GPUs that share the run.  [default: 1]")
@click.option("--height", type=int, help="Pixels.  [default: the model's]")
@click.option("--width", type=int, help="Pixels.  [default: the model's]")
@click.option("--guidance", type=float, help="Guidance scale.  [default: the model's]")
@click.option("--format", "form", type=_FORMATS, default="text", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, readable=False), help="Write to this file.")
def preview(
    config: str,
    model: str,
    steps: int | None,
    gpus: int | None,
    height: int | None,
    width: int | None,
    guidance: float | None,
    form: str,
    out: str | None,
) -> None:
    """Show what CONFIG computes at every step of a run, without a GPU.

    CONFIG is a YAML or JSON file, or - for standard input. The exit status is 2 when CONFIG has an
    error; its picture is then not drawn.
    """
    request = Request(steps, gpus, height, width, guidance)
    compilation, source = compile_inputs(config, model, request)
    name = "<stdin>" if config == STDIN else click.format_filename(config)
    stdout = sys.stdout if out in (None, STDIN) else None
    document = _render(compilation, source, name, model, form, look(stdout))
    if stdout is None or form == "svg":
        report = render_diagnostics(
            compilation.diagnostics, source=source, source_name=name, **look(sys.stderr)
        )
        click.echo(report, err=True, nl=False)
    _write(document, stdout, out)
    if has_errors(compilation.diagnostics):
        sys.exit(2)


def _render(
    compilation: Compilation, source: str, name: str, model: str, form: str, shape: Look
) -> str:
    """The document; empty where there is no plan to draw."""
    plan_id = _plan_id(compilation)
    if form == "json":
        import json

        from planner.render.document import plan_document

        return json.dumps(plan_document(compilation, plan_id, model=model), indent=2) + "\n"
    if form == "svg":
        from planner.render.svg import render_svg

        return render_svg(compilation, plan_id, model=model) if plan_id else ""
    from planner.render.text import render_text

    return render_text(compilation, plan_id, source=source, source_name=name, model=model, **shape)


def _plan_id(compilation: Compilation) -> str | None:
    if compilation.program is None or compilation.estimate is None:
        return None
    from planner.codec import plan_to_proto

    return plan_to_proto(compilation.program, compilation.estimate).plan_id


def _write(document: str, stdout: TextIO | None, out: str | None) -> None:
    """Writes to the stream, or without one to the file; an empty document leaves both alone."""
    if not document:
        return
    try:
        if stdout is not None:
            click.echo(document.encode(stdout.encoding, "backslashreplace"), nl=False)
        elif out is not None:
            Path(out).write_text(document, encoding="utf-8")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"cannot write: {error.strerror or error}") from None


def _error(code: str, field: str, message: str) -> Diagnostic:
    return Diagnostic(Severity.ERROR, code, field, message)
