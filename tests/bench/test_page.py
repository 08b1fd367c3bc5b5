"""What README and docs say is what was measured."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter

from tests.bench.inputs import ROOT
from tests.bench.page import BEGIN, END, claims, grid, page, with_claims
from tests.bench.report import Claim, Figure, Findings, Part, Plot, Report, Series, Table

MEASURED = ROOT / "docs" / "measured"
REPORT = TypeAdapter(Report)

FINDINGS = Findings(
    "Some part",
    "Measured so.",
    (
        Table(
            "Steps", ("", "ms"), (("a | b", Figure.of([1, 2, 3, 4, 5], ".1f", " ms")),), "A note."
        ),
    ),
    (Plot("curve", "A curve", "x", "y", (Series("ours", (1, 2), (3, 4)),), "It rises."),),
    (Claim("a step", Figure(1.004), "1.03", "cache-dit"),),
)
MADE = Report({"some": Part(FINDINGS, "a machine", "Python 3", "2026-01-01", 1.5)})


@pytest.fixture(scope="module")
def stored() -> Report:
    return REPORT.validate_json((MEASURED / "bench.json").read_bytes())


def test_a_figure_is_a_median_with_its_quartiles() -> None:
    figure = Figure.of([4, 1, 3, 2, 5], ".1f", " ms")
    assert (figure.value, figure.low, figure.high) == (3, 2, 4)
    assert str(figure) == "3.0 ms (2.0 to 4.0)"
    assert str(Figure.of([7], ".0%")) == "700%"


def test_a_report_is_stored_and_read_again() -> None:
    assert REPORT.validate_json(REPORT.dump_json(MADE)) == MADE


def test_a_page_has_everything_that_was_found() -> None:
    text = page(MADE)
    for expected in (
        "## Some part\n\nMeasured so.",
        "| a \\| b | 3.0 ms (2.0 to 4.0) |",
        "A note.",
        "![A curve](curve.svg)\n\nIt rises.",
        "2026-01-01, 2 s: a machine; Python 3",
    ):
        assert expected in text


def test_claims_go_into_a_readme_and_nothing_else_changes() -> None:
    readme = with_claims(f"above\n{BEGIN}\nold\n{END}\nbelow\n", MADE)
    assert readme == f"above\n{BEGIN}\n\n{claims(MADE)}\n\n{END}\nbelow\n"
    assert "| a step | 1.00 | 1.03 | cache-dit |" in readme
    assert with_claims(readme, MADE) == readme
    with pytest.raises(ValueError, match="no <!-- measured"):
        with_claims("a README without a place", MADE)


def test_a_table_has_a_cell_for_every_heading(stored: Report) -> None:
    tables = [table for part in stored.parts.values() for table in part.findings.tables]
    assert tables
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.headings)}, grid(table)


def test_the_readme_says_what_was_measured(stored: Report) -> None:
    readme = (ROOT / "README.md").read_text()
    assert with_claims(readme, stored) == readme


def test_the_page_says_what_was_measured(stored: Report) -> None:
    assert (MEASURED / "README.md").read_text() == page(stored)
    plots = {plot.name for part in stored.parts.values() for plot in part.findings.plots}
    assert {path.stem for path in MEASURED.glob("*.svg")} == plots


@pytest.mark.parametrize(
    "path",
    [
        path.relative_to(ROOT).as_posix()
        # The page of the GPU tells what the bench printed on another machine.
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        if path.name != "measuring.md"
    ],
)
def test_no_figure_stands_beside_what_was_measured(path: str) -> None:
    text = (ROOT / path).read_text()
    text = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", "", text, flags=re.DOTALL)
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    assert re.findall(r".*\d ?(?:x|dB|ms|µs|us)(?![\w\]×]| \d).*", prose) == []
