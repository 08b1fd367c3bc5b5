"""Quality against speed on the demo model: ditplan, cache-dit, and simply fewer steps."""

from __future__ import annotations

import sys

from tests.bench.inputs import DEMO
from tests.bench.peer import peer
from tests.bench.report import Findings

# The demo's `training` knows its prompts and judges its pictures; it is run from its own folder.
if str(DEMO.parent) not in sys.path:
    sys.path.append(str(DEMO.parent))

PROMPTS = 32


def measure(*, look: bool) -> Findings:
    """Draws the prompts with every setting and engine."""
    from rich.console import Console
    from rich.progress import track
    from training.scenes import evaluation_prompts

    from tests.bench.headline.findings import findings
    from tests.bench.headline.rows import agreement, result
    from tests.bench.headline.schedule import draw_all, processes
    from tests.bench.headline.settings import WHOLE, Engine, rows, settings

    other = peer()
    engines = [each for each in Engine if each is not Engine.CACHE_DIT or other]
    found = [setting for of in WHOLE for setting in settings(of)]
    drawing = rows(found, engines)
    prompts = evaluation_prompts(2 if look else PROMPTS)
    with processes(engines) as started:
        drawings = draw_all(started, drawing, prompts)
        told = Console(stderr=True)
        drawn = list(track(drawings, f"{len(drawing)} rows", len(prompts), console=told))
    results = {row: result(row, drawn, prompts) for row in drawing if row.engine is row.process}
    return findings(results, agreement(drawn, found), len(prompts))
