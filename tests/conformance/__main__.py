"""Checks planner and engine against recorded masks, sizes and traces: one line a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.conformance import masks, topologies, traces
from tests.conformance.verdict import Report, judge


def reports(oracle: Path) -> list[Report]:
    """One report for every known file that is in the directory."""
    found = []
    for name, cases in (("scm_masks", masks.cases), ("parallel_auto", topologies.cases)):
        if (file := oracle / f"{name}.json").is_file():
            found.append(judge(name, cases(json.loads(file.read_text()))))
    if (file := oracle / "dbcache_traces.json").is_file():
        with np.load(file.with_suffix(".npz")) as arrays:
            cases = traces.cases(json.loads(file.read_text()), arrays)
            found.append(judge("dbcache_traces", cases))
    return found


def main() -> int:
    oracle = Path(sys.argv[1])
    found = reports(oracle)
    for report in found:
        print(report.line)
        for failure in report.failed:
            print(f"  failed: {failure}")
        for skipped in report.skipped:
            print(f"  not supported yet: {skipped}")
    if not found:
        print(f"{oracle}: no recorded data", file=sys.stderr)
    return 1 if not found or any(report.failed for report in found) else 0


if __name__ == "__main__":
    sys.exit(main())
