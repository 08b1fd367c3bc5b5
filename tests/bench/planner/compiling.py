"""How long a config takes to become a plan, for a model of every family."""

from __future__ import annotations

import statistics

import yaml

from planner.compile.compiler import compile_loaded
from planner.compile.request import Request
from planner.config.load import load
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name
from tests.bench.calls import cpu_milliseconds
from tests.bench.inputs import CONFIG, FLUX
from tests.bench.report import Claim, Figure, Table

STEPS = 50


def compile_times(*, runs: int) -> tuple[Table, Claim]:
    text, rows = CONFIG.read_text(), []
    claim: Claim | None = None
    for family, (name, model) in _of_every_family().items():
        bare, whole, peer = [], [], []
        for _ in range(runs):
            bare.append(_compiling(text, model, with_reading=False))
            whole.append(_compiling(text, model, with_reading=True))
            peer += cpu_milliseconds(lambda: yaml.load(text, Loader=yaml.CSafeLoader))
        rows.append((family, Figure.of(bare), Figure.of(whole), Figure.of(peer)))
        if name == FLUX:
            claim = Claim(
                f"a plan of {STEPS} steps compiled, its YAML read, FLUX.1-dev",
                Figure(statistics.median(whole), ".2f", " ms"),
                Figure(statistics.median(peer), ".2f", " ms"),
                "PyYAML alone reading the same file (libyaml)",
            )
    assert claim is not None
    headings = ("family", "compile, ms", "with reading the YAML, ms", "PyYAML alone (libyaml), ms")
    title = f"Compile times, {CONFIG.name}, {STEPS} steps"
    return Table(title, headings, tuple(rows)), claim


def _of_every_family() -> dict[str, tuple[str, ModelFacts]]:
    """The first checkpoint of each that is known by name."""
    found: dict[str, tuple[str, ModelFacts]] = {}
    for name in sorted(NAMED, key=lambda name: name != FLUX):
        model = from_name(name)
        found.setdefault(model.architecture.family, (name, model))
    return found


def _compiling(text: str, model: ModelFacts, *, with_reading: bool) -> float:
    """Milliseconds from the text, or from what was read of it; that is good for one compile."""
    loaded = load(text)

    def work() -> None:
        source = load(text) if with_reading else loaded
        assert compile_loaded(source, model, Request(STEPS)).program is not None

    [took] = cpu_milliseconds(work)
    return took
