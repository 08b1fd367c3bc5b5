"""What there is to install: of the container images, and of the Python packages alone."""

from __future__ import annotations

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

from tests.bench.inputs import ROOT
from tests.bench.report import Cell, Claim, Figure, Table

SIZES = ROOT / "out" / "images" / "sizes.json"
"""Written by `make images`."""
HEADINGS = ("", "planner, MB", "executor, MB", "planner's share")


def sizes() -> tuple[Table, Claim]:
    planner, executor = installed("otel"), installed("otel", "executor")
    rows = [("packages in this environment", *_both(planner, executor))]
    claim = Claim(
        "Python packages that a planner needs",
        *(Figure(found, ".0f", " MB") for found in (planner, executor)),
        "those of an executor",
    )
    if SIZES.exists():
        found = json.loads(SIZES.read_bytes())
        for key, name in (("bytes", "image, unpacked"), ("beyond_base", "image, beyond its base")):
            both = [found[image][key] / 1e6 for image in ("planner", "executor")]
            rows.append((name, *_both(*both)))
            if key == "bytes":
                claim = Claim(
                    "the planner's image, unpacked",
                    *(Figure(size, ".0f", " MB") for size in both),
                    "the executor's, for CPUs",
                )
    else:
        rows.append(("images", "not measured: make images first", "", ""))
    return Table("Size", HEADINGS, tuple(rows)), claim


def _both(planner: float, executor: float) -> tuple[Cell, Cell, Cell]:
    share = Figure(100 * planner / executor, ".1f", " %")
    return Figure(planner, ".0f"), Figure(executor, ".0f"), share


def installed(*extras: str) -> float:
    """Megabytes of every package that ditplan with these extras needs, itself left out."""
    found: dict[str, Distribution] = {}
    missing = [Requirement(f"ditplan[{','.join(extras)}]")]
    while missing:
        requirement = missing.pop()
        try:
            package = found.setdefault(requirement.name.lower(), distribution(requirement.name))
        except PackageNotFoundError:
            continue
        for line in package.requires or ():
            needed = Requirement(line)
            wanted = needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            )
            if wanted and (needed.name.lower() not in found or needed.extras):
                missing.append(needed)
    del found["ditplan"]
    files = {
        path.resolve()
        for package in found.values()
        for file in package.files or ()
        if (path := package.locate_file(file)).is_file()
    }
    return sum(path.stat().st_size for path in files) / 1e6
