"""How near whole runs of a FLUX pipeline come to what their plans promise."""

from __future__ import annotations

import gc
import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import yaml
from diffusers import FluxPipeline
from torch import Tensor

from executor.codec import program_from_proto
from executor.engine.execution import Execution
from executor.engine.program import OpKind
from executor.placement.load import load
from planner.codec import program_to_proto
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_directory
from tests.bench.bound import ideal_speed_up
from tests.bench.engine.models import copy_of, cut
from tests.bench.engine.rounds import now
from tests.bench.inputs import CONFIG, DEMO
from tests.bench.report import Cell, Claim, Figure, Table

STEPS = 28
_PROMPT = "a big red circle in the centre on a white background"


def configs(threshold: float | None = None) -> Iterator[tuple[str, str]]:
    """The example, maybe with another threshold, and the same cache under every static mask."""
    text, name = CONFIG.read_text(), CONFIG.name
    if threshold is not None:
        document = yaml.safe_load(text)
        document["cache_config"]["residual_diff_threshold"] = threshold
        text, name = json.dumps(document), f"{name}, threshold {threshold}"
    yield name, text
    for preset in ("slow", "medium", "fast", "ultra"):
        document = yaml.safe_load(text)
        document["cache_config"] |= {
            "steps_computation_mask": preset,
            "steps_computation_policy": "static",
        }
        yield f"SCM {preset}, static", json.dumps(document)


Bound = Callable[[int], float]
"""The speed-up that a plan's operations promise where so many steps are computed."""


@dataclass(slots=True)
class Run:
    """One way to denoise: seconds of every round, and the steps that were computed."""

    name: str
    denoise: Callable[[], int]
    seconds: list[float] = field(default_factory=list)
    computed: int = STEPS
    bound: Bound | None = None

    def speed_up(self, plain: Run) -> list[float]:
        return [a / b for a, b in zip(plain.seconds, self.seconds, strict=True)]

    def of_bound(self, plain: Run) -> Figure:
        """The share of what the plan promises that came true."""
        assert self.bound is not None
        bound = self.bound(self.computed)
        return Figure.of([each / bound for each in self.speed_up(plain)], ".3f")


@dataclass(frozen=True, slots=True)
class Setting:
    """A pipeline and what it draws; ``side`` in pixels, ``prompt`` and ``pooled`` encoded.

    ``threshold``: the residual diff threshold, if not that of the example.
    """

    title: str
    pipeline: Any
    facts: ModelFacts
    prompt: Tensor
    pooled: Tensor
    side: int
    batch: int
    rounds: int
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """``of_bound``: by run, the share of its plan's bound."""

    setting: Setting
    table: Table
    of_bound: dict[str, Figure]

    def claim(self, what: str, peer: str) -> Claim:
        """Of the example's config: ours, and the peer's where it is there."""
        own, *theirs = (found for name, found in self.of_bound.items() if CONFIG.name in name)
        return Claim(what, own, *((theirs[0], peer) if theirs else ()))


def demo(batch: int, *, rounds: int) -> Setting:
    """The demo model."""
    pipeline = load(str(DEMO)).pipeline
    prompt, pooled, _ = pipeline.encode_prompt(
        _PROMPT, _PROMPT, max_sequence_length=pipeline.tokenizer_2.model_max_length
    )
    facts = from_directory(DEMO)
    return Setting("the demo model", pipeline, facts, prompt, pooled, 64, batch, rounds)


@torch.no_grad()
def whole_runs(setting: Setting, *, with_peer: bool) -> WholeRuns:
    pipeline = setting.pipeline

    def denoise(pipeline: Any, on_step: Callable[[], object] = lambda: None) -> None:
        pipeline(
            prompt_embeds=setting.prompt,
            pooled_prompt_embeds=setting.pooled,
            height=setting.side,
            width=setting.side,
            num_images_per_prompt=setting.batch,
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            callback_on_step_end=lambda *_: on_step() or {},
        )

    def plain(of: Any) -> int:
        denoise(of)
        return STEPS

    first = _with_transformer(pipeline, cut(pipeline.transformer, 1))
    runs = [
        Run("plain diffusers", lambda: plain(pipeline)),
        Run("first block alone", lambda: plain(first)),
    ]
    for name, text in configs(setting.threshold):
        planned = _planned(name, text, setting, denoise)
        runs.append(planned)
        if with_peer and not name.startswith("SCM"):
            runs.append(_peer(name, text, pipeline, denoise, planned.bound))
    _in_turns(setting, runs)
    of_bound = {run.name: run.of_bound(runs[0]) for run in runs[2:]}
    return WholeRuns(setting, _table(setting, runs), of_bound)


def _planned(name: str, text: str, setting: Setting, denoise: Callable[..., None]) -> Run:
    pipeline, side = setting.pipeline, setting.side
    request = Request(num_inference_steps=STEPS, height=side, width=side)
    compiled = compile_config(text, setting.facts, request)
    assert compiled.program is not None
    assert compiled.estimate is not None
    assert compiled.estimate.cost is not None
    program = program_from_proto(program_to_proto(compiled.program))

    def run() -> int:
        execution = Execution({"transformer": pipeline.transformer}, program)
        outcomes: list[Any] = []
        with execution.attached():
            denoise(pipeline, lambda: outcomes.append(execution.end_step()[0]))
        return sum(outcome.kind is OpKind.FULL for outcome in outcomes)

    return Run(name, run, bound=partial(ideal_speed_up, compiled.estimate.cost, STEPS))


def _peer(
    name: str, text: str, pipeline: Any, denoise: Callable[..., None], bound: Bound | None
) -> Run:
    from cache_dit import enable_cache, load_configs, summary

    document = yaml.safe_load(text)
    document["cache_config"]["num_inference_steps"] = STEPS
    cached = _with_transformer(pipeline, copy_of(pipeline.transformer))
    enable_cache(cached, **load_configs(document))

    def run() -> int:
        denoise(cached)
        return STEPS - len(summary(cached, logging=False)[0].cached_steps)

    return Run(f"cache-dit, {name}", run, bound=bound)


def _with_transformer(pipeline: Any, transformer: Any) -> Any:
    other = FluxPipeline(**{**pipeline.components, "transformer": transformer})
    other.set_progress_bar_config(disable=True)
    return other


def _in_turns(setting: Setting, runs: list[Run]) -> None:
    """Every run once a round, in an order drawn anew; the first round does not count."""
    device = next(setting.pipeline.transformer.parameters()).device
    order = random.Random(0)
    gc.disable()
    for number in range(1 + setting.rounds):
        for run in order.sample(runs, len(runs)):
            began = now(device)
            run.computed = run.denoise()
            spent = (now(device) - began) / 1e9
            if number:
                run.seconds.append(spent)
        gc.collect()
    gc.enable()


def _table(setting: Setting, runs: list[Run]) -> Table:
    plain, first, *others = runs
    rows: list[tuple[Cell, ...]] = []
    for run in others:
        # What the same steps take without an engine: computed ones whole, others the first block.
        ideal = [
            (run.computed * whole + (STEPS - run.computed) * cached) / STEPS
            for whole, cached in zip(plain.seconds, first.seconds, strict=True)
        ]
        own = Figure.of([a / b for a, b in zip(ideal, run.seconds, strict=True)], ".3f")
        speed_up = run.speed_up(plain)
        rows.append((run.name, str(run.computed), Figure.of(speed_up), run.of_bound(plain), own))
    return Table(
        f"A run of {setting.title}: {STEPS} steps, batch {setting.batch}, {setting.rounds} rounds",
        ("", "computed", "speed-up", "of its plan's bound", "of plain steps' own time"),
        tuple(rows),
        f"plain diffusers: {statistics.median(plain.seconds):.3f} s, with the first block alone "
        f"{statistics.median(first.seconds):.3f} s.",
    )
