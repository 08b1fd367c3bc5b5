"""``ditplan preview``: what a config would compute, shown before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click

from planner.cli.inputs import (
    STDIN,
    InputError,
    compile_inputs,
    config_name,
    find_model,
    is_plan_file,
    plan_id_of,
)
from planner.cli.options import model_option, request_options
from planner.cli.terminal import Look, look, report
from planner.compile.compiler import Compilation
from planner.compile.request import Request
from planner.diagnostics import has_errors

_FORMATS = click.Choice(["text", "json", "svg", "html"])


@click.command()
@click.argument("config", default="")
@model_option
@request_options
@click.option("--format", "form", type=_FORMATS, default="text", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, readable=False), help="Write to this file.")
@click.option("--sources", is_flag=True, help="Show where every value comes from (text).")
def preview(
    config: str, model: str, request: Request, form: str, out: str | None, sources: bool
) -> None:
    """Show what CONFIG computes at every step of a run, without a GPU.

    CONFIG is a YAML or JSON file, - for standard input, or a plan file (.binpb) of `ditplan
    compile`. SGLANG_CACHE_DIT variables fill in what it leaves out; without CONFIG they are all
    there is. The exit status is 2 when CONFIG has an error; its picture is then not drawn.
    """
    if sources and form != "text":
        raise click.UsageError("--sources is for --format text")
    if is_plan_file(config):
        compilation, source = _stored(config, model, request), ""
    else:
        compilation, source = compile_inputs(config, model, request)
    name = config_name(config)
    failed = has_errors(compilation.diagnostics)
    stream = sys.stdout if out in (None, STDIN) else None
    if form == "text":
        # Without a plan there are no data for whoever reads standard output, or the file.
        stream = sys.stderr if failed else stream
        document = _text(compilation, source, name, model, look(stream), sources=sources)
    else:
        document = _render(compilation, source, name, model, form)
    if stream is None or form == "svg":
        report(compilation.diagnostics, source=source, source_name=name)
    _write(document, stream, out)
    if failed:
        sys.exit(2)


def _stored(path: str, model: str, request: Request) -> Compilation:
    from planner.cli.plan_file import check_plan

    try:
        return check_plan(path, find_model(model), request)
    except InputError as error:
        return Compilation(None, None, request, (error.diagnostic,))


def _text(
    compilation: Compilation, source: str, name: str, model: str, shape: Look, *, sources: bool
) -> str:
    from planner.render.text import render_text

    return render_text(
        compilation,
        plan_id_of(compilation),
        source=source,
        source_name=name,
        model=model,
        sources=sources,
        **shape,
    )


def _render(compilation: Compilation, source: str, name: str, model: str, form: str) -> str:
    """The document; empty where there is no plan to draw."""
    plan_id = plan_id_of(compilation)
    if form == "json":
        import json

        from planner.render.document import plan_document

        return json.dumps(plan_document(compilation, plan_id, model=model), indent=2) + "\n"
    if form == "svg":
        from planner.render.svg import render_svg

        return _in_ascii(render_svg(compilation, plan_id, model=model)) if plan_id else ""
    from planner.render.html import render_html

    page = render_html(compilation, plan_id, source=source, source_name=name, model=model)
    return _in_ascii(page)


def _in_ascii(markup: str) -> str:
    """The same markup, which then means the same in the encoding of every stream."""
    return markup.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _write(document: str, stream: TextIO | None, out: str | None) -> None:
    """Writes to the stream, or without one to the file; an empty document leaves both alone."""
    if not document:
        return
    try:
        if stream is not None:
            click.echo(document.encode(stream.encoding, "backslashreplace"), stream, nl=False)
        elif out is not None:
            Path(out).write_text(document, encoding="utf-8")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(
            f"cannot write {out or STDIN}: {error.strerror or error}"
        ) from None
