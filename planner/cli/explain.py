"""``ditplan explain``: the chain of rules that decided a step."""

from __future__ import annotations

import json
import os
import sys

import click

from planner.cli.inputs import config_name, find_model, plan_id_of, read_config
from planner.cli.options import FORMATS, model_option, request_options
from planner.cli.terminal import look, report
from planner.compile.explanation import StepRangeError, explain_step
from planner.compile.request import Request
from planner.render.explanation import explanation_document, render_explanation


@click.command()
@click.argument("config", default="")
@model_option
@click.option("--step", type=int, required=True, metavar="N", help="Counted from 0.")
@request_options
@click.option("--format", "form", type=FORMATS, default="text", show_default=True)
def explain(config: str, model: str, step: int, request: Request, form: str) -> None:
    """Show which rules of CONFIG decide over a step, in the order in which they are asked.

    CONFIG is a YAML or JSON file, or - for standard input. The exit status is 2 when it has an
    error, or when the run has no such step.
    """
    facts, data = find_model(model), read_config(config)
    try:
        explanation = explain_step(data, facts, request, step, os.environ)
    except StepRangeError as error:
        raise click.BadParameter(str(error), param_hint="'--step'") from None
    compilation = explanation.compilation
    plan_id = plan_id_of(compilation)
    if form == "json":
        click.echo(json.dumps(explanation_document(explanation, plan_id, model=model), indent=2))
    else:
        source = data.decode(errors="replace")
        report(compilation.diagnostics, source=source, source_name=config_name(config))
        if plan_id is not None:
            shape = look(sys.stdout)
            click.echo(render_explanation(explanation, plan_id, model=model, **shape), nl=False)
    if plan_id is None:
        sys.exit(2)
