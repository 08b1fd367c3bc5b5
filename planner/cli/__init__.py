"""The ``ditplan`` command. A subcommand's module is imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

# Command -> its module's attribute and the line that `ditplan --help` shows.
_COMMANDS = {
    "preview": ("planner.cli.preview:preview", "Show the plan of a config, without a GPU."),
    "compile": ("planner.cli.compile:compile_plan", "Write the plan of a config to a file."),
    "explain": ("planner.cli.explain:explain", "Show which rules decide over a step."),
    "diff": ("planner.cli.diff:diff", "Compare what two configs or plans compute."),
    "generate": ("planner.cli.generate:generate", "Generate a picture from a prompt."),
    "schema": ("planner.cli.schema:schema", "Print the JSON Schema of a config."),
    "token": ("planner.cli.token:token", "Make a token and its entry for a planner."),
    "top": ("planner.cli.top:top", "Show what a planner and its executors do, as it changes."),
    "doctor": ("planner.cli.doctor:doctor", "Check a deployment from a client's side."),
    "serve": ("planner.cli.serve:serve", "Run a planner or an executor as a service."),
}


class _LazyGroup(click.Group):
    """A group that knows its commands by name, so that one does not pay for another's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ditplan")
def cli() -> None:
    """Serving for diffusion transformers in which what every denoising step computes is a plan."""


def main() -> None:
    try:
        cli(prog_name="ditplan")
    except OSError as error:
        # What no command expects, as a full disk under standard output.
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
