"""``ditplan schema``: the format of a config, for editors."""

from __future__ import annotations

import json

import click

from planner.config.json_schema import json_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema of a config, with descriptions and defaults."""
    click.echo(json.dumps(json_schema(), indent=2))
