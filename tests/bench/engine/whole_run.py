"""How near whole runs of the demo model come to what their plans promise."""

from __future__ import annotations

import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import FluxPipeline

from executor.codec import program_from_proto
from executor.engine.execution import Execution
from executor.engine.program import OpKind
from executor.placement.load import load
from planner.codec import program_to_proto
from planner.compile.compiler import compile_config
from planner.compile.cost import Cost
from planner.compile.request import Request
from planner.models.resolve import from_directory
from tests.bench.engine.models import DEMO, copy_of, cut
from tests.bench.engine.rounds import quartiles

STEPS, SIDE = 28, 64
ROUNDS = 7
_CONFIG = Path("deploy/examples/cache.yaml")
_PROMPT = "a big red circle in the centre on a white background"


def configs() -> Iterator[tuple[str, str]]:
    """The example, and the same cache under every static mask."""
    text = _CONFIG.read_text()
    yield _CONFIG.name, text
    for preset in ("slow", "medium", "fast", "ultra"):
        document = yaml.safe_load(text)
        document["cache_config"] |= {
            "steps_computation_mask": preset,
            "steps_computation_policy": "static",
        }
        yield f"SCM {preset}, static", json.dumps(document)


@dataclass(slots=True)
class Run:
    """One way to denoise: CPU seconds of every round, and the steps that were computed."""

    name: str
    denoise: Callable[[], int]
    seconds: list[float]
    computed: int = STEPS
    bound: Callable[[int], float] | None = None


@torch.no_grad()
def whole_runs(batch: int, *, with_peer: bool) -> None:
    pipeline = load(DEMO).pipeline
    prompt, pooled, _ = pipeline.encode_prompt(
        _PROMPT, _PROMPT, max_sequence_length=pipeline.tokenizer_2.model_max_length
    )

    def denoise(pipeline: Any, on_step: Callable[[], object] = lambda: None) -> None:
        pipeline(
            prompt_embeds=prompt,
            pooled_prompt_embeds=pooled,
            height=SIDE,
            width=SIDE,
            num_images_per_prompt=batch,
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
        Run("plain diffusers", lambda: plain(pipeline), []),
        Run("first block alone", lambda: plain(first), []),
    ]
    for name, text in configs():
        runs.append(_planned(name, text, pipeline, denoise))
        if with_peer and name == _CONFIG.name:
            runs.append(_peer(name, text, pipeline, denoise))
    _in_turns(runs)
    _report(batch, runs)


def _planned(name: str, text: str, pipeline: Any, denoise: Callable[..., None]) -> Run:
    compiled = compile_config(text, from_directory(Path(DEMO)), Request(num_inference_steps=STEPS))
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

    return Run(name, run, [], bound=lambda n, cost=compiled.estimate.cost: _bound(cost, n))


def _bound(cost: Cost, computed: int) -> float:
    """The plan's ideal speed-up where as many steps are computed, by floating point operations."""
    column = cost.columns[0]
    saved = (STEPS - computed) * (column.full_flops - column.cached_flops)
    return cost.full_flops / (cost.full_flops - saved)


def _peer(name: str, text: str, pipeline: Any, denoise: Callable[..., None]) -> Run:
    from cache_dit import enable_cache, load_configs, summary

    document = yaml.safe_load(text)
    document["cache_config"]["num_inference_steps"] = STEPS
    cached = _with_transformer(pipeline, copy_of(pipeline.transformer))
    enable_cache(cached, **load_configs(document))

    def run() -> int:
        denoise(cached)
        return STEPS - len(summary(cached, logging=False)[0].cached_steps)

    return Run(f"cache-dit, {name}", run, [])


def _with_transformer(pipeline: Any, transformer: Any) -> Any:
    other = FluxPipeline(**{**pipeline.components, "transformer": transformer})
    other.set_progress_bar_config(disable=True)
    return other


def _in_turns(runs: list[Run]) -> None:
    """Every run once a round, in an order drawn anew; the first round does not count."""
    order = random.Random(0)
    gc.disable()
    for number in range(1 + ROUNDS):
        for run in order.sample(runs, len(runs)):
            began = time.thread_time()
            run.computed = run.denoise()
            spent = time.thread_time() - began
            if number:
                run.seconds.append(spent)
        gc.collect()
    gc.enable()


def _report(batch: int, runs: list[Run]) -> None:
    plain, first, *others = runs
    print(f"whole runs of the demo model, {STEPS} steps, batch {batch}, {ROUNDS} rounds")
    print(
        f"  plain {statistics.median(plain.seconds):.3f} s, "
        f"first block alone {statistics.median(first.seconds):.3f} s"
    )
    print(
        f"  {'':34} {'computed':>8}  {'speed-up':22} {'of the plan':>11}  of plain steps' own time"
    )
    for run in others:
        speed_up = [a / b for a, b in zip(plain.seconds, run.seconds, strict=True)]
        share = f"{statistics.median(speed_up) / run.bound(run.computed):.3f}" if run.bound else ""
        # What the same steps take without an engine: computed ones whole, others the first block.
        ideal = [
            (run.computed * whole + (STEPS - run.computed) * cached) / STEPS
            for whole, cached in zip(plain.seconds, first.seconds, strict=True)
        ]
        own = quartiles([a / b for a, b in zip(ideal, run.seconds, strict=True)], ".3f")
        print(
            f"  {run.name:34} {run.computed:8}  {quartiles(speed_up, '.2f'):22} {share:>11}  {own}"
        )
