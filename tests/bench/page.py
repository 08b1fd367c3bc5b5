"""A report as Markdown: a page of all it found, and a table of its claims for the README."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.report import Cell, Part, Report, Table

BEGIN, END = "<!-- measured: written by make bench -->", "<!-- measured: end -->"

_HEAD = """\
# Measured

`make bench` prints all of this, and writes this page, its plots and [bench.json](bench.json).
Figures are medians with quartiles in brackets, where there were several rounds."""


def page(report: Report) -> str:
    """All findings."""
    found = [_HEAD]
    for part in report.parts.values():
        found += _part(part)
    return "\n\n".join(found) + "\n"


def _part(part: Part) -> Iterator[str]:
    findings = part.findings
    yield f"## {findings.title}"
    yield findings.method
    for table in findings.tables:
        yield f"**{table.title}**"
        yield grid(table)
        if table.note:
            yield table.note
    for plot in findings.plots:
        yield f"![{plot.title}]({plot.name}.svg)"
        yield plot.says
    yield f"<sub>{part.date}, {part.seconds:.0f} s: {part.machine}; {part.versions}</sub>"


def grid(table: Table) -> str:
    """A table of GitHub's Markdown."""
    sides = ["---"] + ["---:"] * (len(table.headings) - 1)
    lines = [table.headings, sides, *table.rows]
    return "\n".join(f"| {' | '.join(map(_text, line))} |" for line in lines)


def _text(cell: Cell) -> str:
    return str(cell).replace("|", "\\|")


def claims(report: Report) -> str:
    """The table of the README."""
    found = [claim for part in report.parts.values() for claim in part.findings.claims]
    rows = tuple((claim.what, claim.ours, claim.other, claim.than) for claim in found)
    return grid(Table("", ("", "ditplan", "beside it", "which is"), rows))


def with_claims(readme: str, report: Report) -> str:
    """A README whose table is that of a report; ``ValueError`` where it has no place for it."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END} in it")
    return f"{before}{BEGIN}\n\n{claims(report)}\n\n{END}{after}"
