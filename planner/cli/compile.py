"""``ditplan compile``: a plan as a file."""

from __future__ import annotations

import sys

import click

from planner.cli.inputs import STDIN, compile_inputs, config_name
from planner.cli.options import model_option, request_options
from planner.cli.plan_file import write_plan
from planner.cli.terminal import report
from planner.compile.request import Request


@click.command("compile")
@click.argument("config", default="")
@model_option
@request_options
@click.option(
    "--out",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, readable=False, allow_dash=True),
    help="The plan's file, e.g. plan.binpb, or - for standard output.",
)
def compile_plan(config: str, model: str, request: Request, out: str) -> None:
    """Compile CONFIG to a file that `ditplan generate --plan` executes.

    The exit status is 2 when CONFIG has an error; nothing is then written.
    """
    compilation, source = compile_inputs(config, model, request)
    report(compilation.diagnostics, source=source, source_name=config_name(config))
    if compilation.program is None or compilation.estimate is None:
        sys.exit(2)
    from planner.codec import plan_to_proto

    plan = plan_to_proto(compilation.program, compilation.estimate)
    write_plan(out, plan)
    said = f"{out}: plan {plan.plan_id}, {len(plan.program.steps)} steps"
    click.echo(said, err=out == STDIN)
