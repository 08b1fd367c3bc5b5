"""Measures ditplan on the machine at hand, peers beside it, and writes down what it found."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from pydantic import TypeAdapter

from tests.bench.drawn import draw
from tests.bench.inputs import ROOT
from tests.bench.page import page, with_claims
from tests.bench.parts import PARTS, measured, usual
from tests.bench.printed import console, show
from tests.bench.report import Report

REPORT = TypeAdapter(Report)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--look", is_flag=True, help="A quick look: few rounds, wide spreads.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "out" / "bench")
@click.option("--readme", type=click.Path(path_type=Path), help="A README to write claims into.")
def bench(parts: tuple[str, ...], look: bool, out: Path, readme: Path | None) -> None:
    """Measure PARTS (all, if none is named); parts of an earlier report in --out stay."""
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "bench.json"
    report = REPORT.validate_json(stored.read_bytes()) if stored.exists() else Report()
    terminal = console()
    failed = []
    for name in parts or usual():
        click.echo(f"measuring {name} ...", err=True)
        try:
            part = measured(name, look=look)
        except Exception as error:
            click.echo(f"{name} failed: {error!r}\n{error.__cause__ or ''}", err=True)
            failed.append(name)
            continue
        show(part.findings, terminal)
        terminal.print(f"({part.seconds:.0f} s: {part.machine}; {part.versions})\n")
        report.parts[name] = part
        for plot in part.findings.plots:
            draw(plot, out)
        _write(report, out, readme)
    click.echo(f"{out}: README.md, bench.json and plots")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _write(report: Report, out: Path, readme: Path | None) -> None:
    ordered = Report({name: report.parts[name] for name in PARTS if name in report.parts})
    (out / "bench.json").write_bytes(REPORT.dump_json(ordered, indent=1) + b"\n")
    (out / "README.md").write_text(page(ordered))
    if readme:
        readme.write_text(with_claims(readme.read_text(), ordered))


if __name__ == "__main__":
    bench()
