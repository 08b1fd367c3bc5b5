"""The recorded data that the repository carries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.__main__ import reports
from tests.conformance.verdict import Report

DATA = Path(__file__).parents[1] / "data" / "oracle"


@pytest.fixture(scope="module")
def by_name() -> dict[str, Report]:
    return {report.name: report for report in reports(DATA)}


@pytest.mark.parametrize("name", ["scm_masks", "parallel_auto", "dbcache_traces"])
def test_nothing_differs_from_the_record(by_name: dict[str, Report], name: str) -> None:
    assert by_name[name].failed == []
    assert by_name[name].passed > 30


def test_nothing_is_left_out(by_name: dict[str, Report]) -> None:
    assert [case for report in by_name.values() for case in report.skipped] == []
