"""Measures how well runs of the demo model are predicted: one by one, and a whole queue.

A mix of sizes, steps and configs runs in random order, again and again; each run is predicted by
what ran before it. Compared is with its wall time, and with its processor time, which other work
on the machine disturbs less: predicted is then from processor times, too.

Run it with `make bench-scaling`.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from itertools import product
from pathlib import Path

import grpc
from ditplan.v1 import generation_pb2
from ditplan.v1.generation_pb2_grpc import GenerationServiceStub

from planner.scaling.speeds import Speeds
from planner.store.values import Finished, Load
from tests.bench.planner import cpu_seconds
from tests.e2e.processes import Service

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
MODEL = DEMO / "model"
CONFIGS = {
    "uncached": "",
    "DBCache": (DEMO / "cache.yaml").read_text(),
    "SCM fast": (DEMO / "scm-fast.yaml").read_text(),
}
KINDS = [
    (config, steps, size)
    for config, steps, size in product(CONFIGS, (12, 28, 50), (64, 128))
    # The preset is for 28 steps.
    if config != "SCM fast" or steps == 28
]
# Of every kind so many runs are learned from before predictions count.
LEARNED = 2
ROUNDS = 5
PROMPT = "a red star on a blue background"


def _run(stub: GenerationServiceStub, config: str, steps: int, size: int) -> Finished:
    spec = generation_pb2.GenerationSpec(
        model=str(MODEL),
        config=CONFIGS[config],
        prompt=PROMPT,
        num_inference_steps=steps,
        height=size,
        width=size,
        seed=1,
    )
    request = generation_pb2.GenerateRequest(spec=spec)
    [*_, last] = stub.Generate(request, timeout=300)
    ended, cost = last.event.finished, last.event.finished.plan.estimate.cost
    flops = (cost.step_flops, cost.min_flops, cost.max_flops)
    load = Load("demo", str(MODEL), ended.plan.plan_id, steps, *flops)
    return Finished(load, cost, ended.record)


def _with_seconds(run: Finished, seconds: float) -> Finished:
    record = generation_pb2.Record(steps=run.record.steps, total_seconds=seconds)
    return Finished(run.load, run.cost, record)


def main() -> None:
    order = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        serve = ("-m", "planner", "serve", "planner", "--data", str(directory / "data"))
        planner = Service(directory, "planner", *serve)
        planner.await_ready()
        execute = ("-m", "executor", "--name", "one", "--planner", planner.address)
        executor = Service(directory, "executor", *execute, "--model", str(MODEL))
        executor.await_ready()
        try:
            with grpc.insecure_channel(planner.address) as channel:
                _measure(GenerationServiceStub(channel), executor.process.pid, order)
        finally:
            executor.kill()
            planner.kill()


def _measure(stub: GenerationServiceStub, executor: int, order: random.Random) -> None:
    clocks = {"wall time": Speeds(), "processor time": Speeds()}
    pairs: dict[str, list[tuple[float, float]]] = {clock: [] for clock in clocks}
    for turn in range(ROUNDS):
        for kind in order.sample(KINDS, len(KINDS)):
            before = cpu_seconds(executor)
            run = _run(stub, *kind)
            spent = cpu_seconds(executor) - before
            for clock, seconds in zip(clocks, (run.record.total_seconds, spent), strict=True):
                speeds = clocks[clock]
                if turn >= LEARNED:
                    pairs[clock].append((speeds.seconds(run.load), seconds))
                speeds.learn(_with_seconds(run, seconds))
    for clock, found in pairs.items():
        errors = sorted(abs(predicted / actual - 1) for predicted, actual in found)
        within = sum(error <= 0.2 for error in errors) / len(errors)
        whole = sum(predicted for predicted, _ in found) / sum(actual for _, actual in found) - 1
        print(
            f"{clock}: {len(found)} runs of {len(KINDS)} kinds, median error "
            f"{statistics.median(errors):.1%}, {within:.0%} within 20 %, all together {whole:+.1%}"
        )


if __name__ == "__main__":
    main()
