"""``ditplan diff``: what two configs or plans compute differently."""

from __future__ import annotations

import json
import os
import sys

import click

from planner.cli.inputs import STDIN, config_name, find_model, is_plan_file, read_config
from planner.cli.options import FORMATS, model_option, request_options
from planner.cli.plan_file import check_plan
from planner.cli.terminal import look, report
from planner.codec import plan_to_proto
from planner.compile.compiler import compile_config
from planner.compile.difference import all_columns, key_changes, setting_changes, step_changes
from planner.compile.plan import Program
from planner.compile.request import Request
from planner.diagnostics import has_errors
from planner.models.facts import ModelFacts
from planner.render.difference import Difference, Side, difference_document, render_difference

SAME, DIFFERENT, REFUSED = 0, 1, 2


@click.command()
@click.argument("a")
@click.argument("b")
@model_option
@request_options
@click.option("--format", "form", type=FORMATS, default="text", show_default=True)
def diff(a: str, b: str, model: str, request: Request, form: str) -> None:
    """Show what A and B compute differently, step by step, and which keys cause it.

    A and B are configs (- for standard input), or plan files (.binpb) of `ditplan compile`. The
    exit status is 0 when both are the same plan, 1 when they differ and 2 when one of them has an
    error.
    """
    if a == b == STDIN:
        raise click.UsageError("only one of A and B can be standard input")
    facts = find_model(model)
    # Each is read once: standard input can be no second time.
    texts = [b"" if is_plan_file(name) else read_config(name) for name in (a, b)]
    before, after = (
        _side(name, text, facts, request) for name, text in zip((a, b), texts, strict=True)
    )
    programs = before.compilation.program, after.compilation.program
    assert programs[0] is not None
    assert programs[1] is not None

    def compiled(text: str) -> Program | None:
        return compile_config(text, facts, request, os.environ).program

    both_configs = not any(is_plan_file(name) for name in (a, b))
    difference = Difference(
        columns=all_columns(programs[0], programs[1]),
        steps=step_changes(programs[0], programs[1]),
        settings=setting_changes(programs[0], programs[1]),
        keys=key_changes(texts[0], texts[1], compiled) if both_configs else [],
    )
    if form == "json":
        click.echo(json.dumps(difference_document(before, after, difference), indent=2))
    else:
        click.echo(render_difference(before, after, difference, **look(sys.stdout)), nl=False)
    sys.exit(SAME if before.plan_id == after.plan_id else DIFFERENT)


def _side(name: str, source: bytes, facts: ModelFacts, request: Request) -> Side:
    compilation = (
        check_plan(name, facts, request)
        if is_plan_file(name)
        else compile_config(source, facts, request, os.environ)
    )
    if has_errors(compilation.diagnostics):
        text = source.decode(errors="replace")
        report(compilation.diagnostics, source=text, source_name=config_name(name))
        sys.exit(REFUSED)
    assert compilation.program is not None
    assert compilation.estimate is not None
    plan = plan_to_proto(compilation.program, compilation.estimate)
    return Side(config_name(name), plan.plan_id, compilation)
