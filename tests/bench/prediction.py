"""How well runs of the demo model are predicted: one by one, and a whole queue."""

from __future__ import annotations

import random
from itertools import product

import grpc
from ditplan.v1 import generation_pb2
from ditplan.v1.generation_pb2_grpc import GenerationServiceStub

from planner.scaling.speeds import Speeds
from planner.store.values import Finished, Load
from tests.bench.calls import cpu_seconds, executor, planner
from tests.bench.inputs import DEMO
from tests.bench.report import Claim, Figure, Findings, Table

CONFIGS = {
    "uncached": "",
    "DBCache": (DEMO.parent / "cache.yaml").read_text(),
    "SCM fast": (DEMO.parent / "scm-fast.yaml").read_text(),
}
PROMPT = "a red star on a blue background"
METHOD = (
    "A mix of sizes, steps and configs runs in random order, again and again; each run is "
    "predicted by what ran before it, from the {first} run of its kind on. Compared is with its "
    "wall time, and with its processor time, which other work on the machine disturbs less: "
    "predicted is then from processor times, too."
)

Kind = tuple[str, int, int]
Pairs = dict[str, list[tuple[float, float]]]


def _run(stub: GenerationServiceStub, config: str, steps: int, size: int) -> Finished:
    spec = generation_pb2.GenerationSpec(
        model=str(DEMO),
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
    load = Load("demo", str(DEMO), ended.plan.plan_id, steps, *flops)
    return Finished(load, cost, ended.record)


def _with_seconds(run: Finished, seconds: float) -> Finished:
    record = generation_pb2.Record(steps=run.record.steps, total_seconds=seconds)
    return Finished(run.load, run.cost, record)


def _kinds(*, look: bool) -> list[Kind]:
    """Config, steps and size."""
    steps, sizes = ((12, 28), (64,)) if look else ((12, 28, 50), (64, 128))
    return [
        kind
        for kind in product(CONFIGS, steps, sizes)
        # The preset is for 28 steps.
        if kind[0] != "SCM fast" or kind[1] == 28
    ]


def measure(*, look: bool) -> Findings:
    learned, rounds = (1, 2) if look else (2, 5)
    kinds = _kinds(look=look)
    with (
        planner("--model-root", str(DEMO)) as served,
        executor(served) as worker,
        grpc.insecure_channel(served.address) as channel,
    ):
        stub = GenerationServiceStub(channel)
        pairs = _pairs(stub, worker.process.pid, kinds, learned=learned, rounds=rounds)
    rows = tuple((clock, *_errors(found)) for clock, found in pairs.items())
    headings = ("", "error of a run", "within 20 %", "error of all together")
    title = f"Runs of {len(kinds)} kinds, {len(pairs['wall time'])} predicted"
    claim = Claim(
        "how far a run's time is from what was predicted",
        rows[0][1],
        rows[0][3],
        "the error of all runs together, as a queue is",
    )
    method = METHOD.format(first=("second", "third")[learned - 1])
    return Findings("Prediction", method, tables=(Table(title, headings, rows),), claims=(claim,))


def _pairs(
    stub: GenerationServiceStub, executor: int, kinds: list[Kind], *, learned: int, rounds: int
) -> Pairs:
    """By clock: seconds as predicted, and as they were."""
    order = random.Random(1)
    clocks = {"wall time": Speeds(), "processor time": Speeds()}
    pairs: Pairs = {clock: [] for clock in clocks}
    for turn in range(rounds):
        for kind in order.sample(kinds, len(kinds)):
            before = cpu_seconds(executor)
            run = _run(stub, *kind)
            spent = cpu_seconds(executor) - before
            for clock, seconds in zip(clocks, (run.record.total_seconds, spent), strict=True):
                speeds = clocks[clock]
                if turn >= learned:
                    pairs[clock].append((speeds.seconds(run.load), seconds))
                speeds.learn(_with_seconds(run, seconds))
    return pairs


def _errors(found: list[tuple[float, float]]) -> tuple[Figure, Figure, Figure]:
    """Percent: of one run, runs that are within 20, and of all."""
    errors = [100 * abs(predicted / actual - 1) for predicted, actual in found]
    within = 100 * sum(error <= 20 for error in errors) / len(errors)
    whole = sum(predicted for predicted, _ in found) / sum(actual for _, actual in found) - 1
    return (
        Figure.of(errors, ".1f", " %"),
        Figure(within, ".0f", " %"),
        Figure(100 * whole, "+.1f", " %"),
    )
