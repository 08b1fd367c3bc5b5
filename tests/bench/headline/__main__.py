"""Draws the demo's prompts with every setting and engine, and compares quality and speed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from training.scenes import evaluation_prompts

from tests.bench.headline.output import write
from tests.bench.headline.report import report
from tests.bench.headline.schedule import draw_all, processes
from tests.bench.headline.settings import ROOT, Engine, rows_of
from tests.bench.headline.table import table

CACHING = (Engine.DITPLAN.value, Engine.CACHE_DIT.value)
WIDTH = 130
"""Columns of the terminal that the table needs."""


@click.command()
@click.option("--prompts", type=click.IntRange(min=1), default=64, help="How many to draw.")
@click.option("--engines", type=click.Choice(CACHING), multiple=True, default=CACHING)
@click.option("--settings", multiple=True, help="Only those whose title contains this.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "out" / "quality")
def quality(prompts: int, engines: tuple[str, ...], settings: tuple[str, ...], out: Path) -> None:
    """Compare uncached, cached and shorter runs of the demo model."""
    console = Console()
    console.width = max(console.width, WIDTH)
    if Engine.CACHE_DIT in engines and find_spec("cache_dit") is None:
        console.print("cache-dit is not installed: its rows are left out")
        engines = tuple(engine for engine in engines if engine != Engine.CACHE_DIT)
    rows = rows_of(engines, settings)
    texts = evaluation_prompts(prompts)
    with Progress(console=console) as progress, processes({row.engine for row in rows}) as started:
        drawings = draw_all(started, rows, texts)
        drawn = list(progress.track(drawings, prompts, description=f"{len(rows)} rows"))
    found = report(drawn, texts)
    write(found, drawn, out)
    console.print(table(found))
    both = found["engines"]
    if both["pictures"]:
        console.print(
            f"ditplan and cache-dit computed the same steps in {both['same_steps']} of "
            f"{both['pictures']} pictures and drew the same pixels in {both['same_pixels']}"
        )
    console.print(f"{out}: quality.json, contact-sheet.png, quality.png", soft_wrap=True)


if __name__ == "__main__":
    quality()
