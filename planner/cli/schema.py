"""``ditplan schema``: the format of a config, for editors and for people."""

from __future__ import annotations

import json

import click

from planner.config.json_schema import json_schema


@click.command()
@click.option(
    "--format", "form", type=click.Choice(["json", "markdown"]), default="json", show_default=True
)
def schema(form: str) -> None:
    """Print what a config may hold: as JSON Schema, or as the page docs/yaml.md."""
    if form == "markdown":
        from planner.config.schema_page import page

        click.echo(page(), nl=False)
    else:
        click.echo(json.dumps(json_schema(), indent=2))
