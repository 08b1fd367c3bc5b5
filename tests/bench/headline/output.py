"""The files that a run leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.headline.engines import Drawing
from tests.bench.headline.plot import plot
from tests.bench.headline.settings import Row
from tests.bench.headline.sheet import sheet


def write(report: dict[str, Any], drawn: Sequence[Mapping[Row, Drawing]], folder: Path) -> None:
    """The report as JSON, the plot and the contact sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.json").write_text(json.dumps(report, indent=1) + "\n")
    sheet(report, drawn).save(folder / "contact-sheet.png")
    plot(report, folder / "quality.png")
