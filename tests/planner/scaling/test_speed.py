"""Predictions against a simulated mix of runs, and what they fall back on."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import median

import pytest
from ditplan.v1 import generation_pb2, plan_pb2

from planner.scaling.speed import ASSUMED_FLOPS, Observation, observed, predicted_seconds
from planner.scaling.speeds import Speeds
from planner.store.values import Finished, Load

FULL, CACHED = plan_pb2.OP_KIND_FULL, plan_pb2.OP_KIND_CACHED
BLOCKS = 0.9
SIZES = {1024: 60e12, 512: 13e12}


def load(
    size: int = 1024, steps: int = 28, plan: str = "plan", computed: tuple[int, int] | None = None
) -> Load:
    """``computed``: the fewest and most computed steps; a cached one costs a tenth."""
    step = SIZES[size]
    least, most = computed or (steps, steps)

    def flops(count: int) -> float:
        return step * (count + (steps - count) * (1 - BLOCKS))

    return Load("needs", "model", plan, steps, step, flops(least), flops(most))


def finished(work: Load, computed: int, seconds: float) -> Finished:
    kinds = [FULL] * computed + [CACHED] * (work.step_count - computed)
    cost = plan_pb2.Cost(
        columns=[
            plan_pb2.ColumnCost(full_flops=work.step_flops * BLOCKS, cached_flops=0),
        ],
        full_flops=work.step_flops * work.step_count,
    )
    steps = [generation_pb2.StepOutcome(ops=[generation_pb2.OpOutcome(kind=k)]) for k in kinds]
    record = generation_pb2.Record(steps=steps, total_seconds=seconds)
    return Finished(work, cost, record)


class Machine:
    """Takes the larger share of its peak the larger its work is, some time a step and a run.

    One run in ten is disturbed, and takes up to three times as long.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def seconds(self, work: Load, computed: int) -> float:
        share = 0.5 if work.step_flops > 30e12 else 0.3
        flops = work.step_flops * (computed + (work.step_count - computed) * (1 - BLOCKS))
        quiet = flops / (9e14 * share) + 0.004 * work.step_count + 0.3
        return quiet * self._random.uniform(0.97, 1.03)

    def disturbed(self, work: Load, computed: int) -> float:
        slow = self._random.uniform(1.5, 3) if self._random.random() < 0.1 else 1.0
        return self.seconds(work, computed) * slow


MIX = [
    (load(1024, 28), 28),
    (load(512, 28), 28),
    (load(1024, 50), 50),
    (load(1024, 28, "adaptive", (8, 28)), 13),
    (load(512, 28, "adaptive", (8, 28)), 15),
    (load(1024, 28, "mask", (11, 11)), 11),
]


@pytest.mark.parametrize("seed", range(5))
def test_after_a_few_runs_of_a_mix_each_is_predicted_within_a_fifth(seed: int) -> None:
    machine, speeds, order = Machine(seed), Speeds(), random.Random(seed)
    for _ in range(5):
        for work, computed in order.sample(MIX, len(MIX)):
            speeds.learn(finished(work, computed, machine.disturbed(work, computed)))
    for work, computed in MIX:
        assert speeds.seconds(work) == pytest.approx(machine.seconds(work, computed), rel=0.2)


def test_a_plan_that_never_ran_is_predicted_from_those_like_it() -> None:
    machine, speeds = Machine(0), Speeds()
    for steps in (28, 28, 50):
        speeds.learn(finished(load(steps=steps), steps, machine.seconds(load(steps=steps), steps)))
    work = load(steps=40, plan="new")
    assert speeds.seconds(work) == pytest.approx(machine.seconds(work, 40), rel=0.1)


def test_what_a_run_computed_is_counted_from_its_record() -> None:
    work = load(computed=(8, 28))
    run = observed(finished(work, 13, 5.0))
    assert run is not None
    assert run.flops == pytest.approx(work.step_flops * (13 + 15 * (1 - BLOCKS)))
    assert run.position == pytest.approx((13 - 8) / 20)


def test_an_adaptive_plan_goes_by_its_own_runs_before_those_of_others() -> None:
    own, other = load(plan="own", computed=(8, 28)), load(plan="other", computed=(8, 28))
    runs = [observed(finished(other, 28, 28.0))] * 5 + [observed(finished(own, 8, 10.0))]
    known = [run for run in runs if run is not None]
    assert predicted_seconds(own, known) == pytest.approx(own.min_flops / other.max_flops * 28)
    # One that never ran goes by what the others came to.
    assert predicted_seconds(replace(own, plan_id="new"), known) == pytest.approx(28.0)


def test_one_slow_run_does_not_tell_of_the_others() -> None:
    speeds = Speeds([finished(load(), 28, s) for s in (5.0, 5.0, 500.0, 5.0)])
    assert speeds.seconds(load()) == pytest.approx(5.0)


def test_a_faster_executor_is_believed_after_three_runs() -> None:
    speeds = Speeds([finished(load(), 28, 50.0) for _ in range(60)])
    for _ in range(3):
        speeds.learn(finished(load(), 28, 10.0))
    assert speeds.seconds(load()) == pytest.approx(10.0)


def test_before_the_first_run_a_speed_is_assumed() -> None:
    assert predicted_seconds(load(), []) == pytest.approx(28 * 60e12 / ASSUMED_FLOPS)
    unknown = replace(load(steps=40), step_flops=0, min_flops=0, max_flops=0)
    assert predicted_seconds(unknown, []) == 40


def test_a_model_whose_flops_are_not_known_goes_by_its_steps() -> None:
    unknown = replace(load(steps=40), step_flops=0, min_flops=0, max_flops=0)
    speeds = Speeds([finished(unknown, 40, 8.0)])
    assert speeds.seconds(replace(unknown, step_count=10)) == pytest.approx(2.0)


def test_other_needs_of_the_model_go_by_it_until_they_have_run() -> None:
    speeds = Speeds([finished(load(), 28, 5.0)])
    quantized = replace(load(), requirement="quantized")
    assert speeds.seconds(quantized) == pytest.approx(5.0)
    speeds.learn(finished(quantized, 28, 3.0))
    assert speeds.seconds(quantized) == pytest.approx(3.0)
    assert speeds.seconds(load()) == pytest.approx(5.0)


def test_a_run_without_a_length_teaches_nothing() -> None:
    assert observed(finished(load(), 28, 0.0)) is None


def test_memory_is_bounded_whatever_comes() -> None:
    speeds = Speeds()
    run = finished(load(), 28, 5.0)
    for number in range(2000):
        work = replace(run.load, requirement=f"{number}", model=f"{number}")
        speeds.learn(replace(run, load=work))
    held = speeds._runs
    assert len(held) <= 256
    for _ in range(100):
        speeds.learn(run)
    assert max(len(runs) for runs in held.values()) == 64
    for number in range(5000):
        speeds.seconds(replace(run.load, plan_id=f"{number}"))
    assert len(speeds._known) <= 4096


def test_the_median_is_of_runs_not_of_one_plan() -> None:
    runs = [Observation(load(), load().max_flops, seconds) for seconds in (4.0, 5.0, 9.0)]
    assert predicted_seconds(load(), runs) == pytest.approx(median((4.0, 5.0, 9.0)))
