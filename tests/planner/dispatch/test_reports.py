"""Step reports against the plan, and the program that a record holds."""

from __future__ import annotations

import math

import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, plan_pb2

from planner.dispatch.reports import (
    InvalidReportError,
    check_completion,
    decided_program,
    new_steps,
)

FULL, CACHED, ADAPTIVE = (
    plan_pb2.OP_KIND_FULL,
    plan_pb2.OP_KIND_CACHED,
    plan_pb2.OP_KIND_ADAPTIVE,
)
WARMUP = plan_pb2.Op(kind=FULL, reason=plan_pb2.REASON_WARMUP)
MAYBE = plan_pb2.Op(
    kind=ADAPTIVE,
    reason=plan_pb2.REASON_DBCACHE,
    adaptive=plan_pb2.AdaptiveRule(residual_diff_threshold=0.1),
)
FRESH = plan_pb2.Op(
    kind=ADAPTIVE, reason=plan_pb2.REASON_DBCACHE, adaptive=MAYBE.adaptive, refresh=True
)
STATIC = plan_pb2.Op(kind=CACHED, reason=plan_pb2.REASON_SCM_CACHE)
# Two columns; the second runs only from step 1 on.
PROGRAM = plan_pb2.Program(
    num_inference_steps=4,
    columns=[plan_pb2.Column(target="transformer"), plan_pb2.Column(target="transformer_2")],
    ops=[WARMUP, MAYBE, STATIC, FRESH],
    steps=[plan_pb2.Step(ops=ops) for ops in ([1, 0], [2, 1], [3, 4], [2, 2])],
)


def outcome(step: int, *kinds: int) -> generation_pb2.StepOutcome:
    ops = [generation_pb2.OpOutcome(kind=kind) for kind in kinds]  # type: ignore[arg-type]
    return generation_pb2.StepOutcome(step=step, ops=ops, milliseconds=1.0)


DONE = [outcome(0, FULL, 0), outcome(1, CACHED, FULL), outcome(2, CACHED, FULL)]
DONE.append(outcome(3, FULL, CACHED))


def test_only_steps_that_are_not_stored_are_new() -> None:
    assert new_steps(PROGRAM, DONE, 0) == DONE
    assert new_steps(PROGRAM, DONE, 3) == DONE[3:]
    assert new_steps(PROGRAM, DONE[:2], 3) == []
    assert new_steps(PROGRAM, [DONE[0], DONE[0], DONE[1]], 0) == DONE[:2]


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (outcome(1, CACHED, FULL), "step 1 is reported where 0 is next"),
        (outcome(0, CACHED, 0), "step 0, column 0: planned FULL, executed CACHED"),
        (outcome(0, FULL, FULL), "step 0, column 1: planned UNSPECIFIED, executed FULL"),
        (outcome(0, FULL), "reports 1 ops, the plan has 2"),
        (outcome(0, 99, 0), "executed 99"),
    ],
)
def test_a_report_that_is_not_of_the_plan_is_refused(
    report: generation_pb2.StepOutcome, words: str
) -> None:
    with pytest.raises(InvalidReportError, match=words):
        new_steps(PROGRAM, [report], 0)


def test_later_lies_are_found_too() -> None:
    with pytest.raises(InvalidReportError, match="planned CACHED, executed FULL"):
        new_steps(PROGRAM, [outcome(2, FULL, FULL)], 2)
    with pytest.raises(InvalidReportError, match="planned ADAPTIVE, executed ADAPTIVE"):
        new_steps(PROGRAM, [outcome(1, ADAPTIVE, FULL)], 1)
    with pytest.raises(InvalidReportError, match="of a run of 4 steps"):
        new_steps(PROGRAM, [outcome(4, FULL, FULL)], 4)
    endless = outcome(0, FULL, 0)
    endless.milliseconds = math.inf
    with pytest.raises(InvalidReportError, match="inf ms"):
        new_steps(PROGRAM, [endless], 0)


def test_a_completion_is_of_a_whole_run_and_its_times_are_times() -> None:
    good = {"denoise_seconds": 1.0, "total_seconds": 2.0, "reload_seconds": 3.0}
    check_completion(PROGRAM, dispatch_pb2.Completion(**good, cache_bytes=[1, 2]), 4)
    check_completion(PROGRAM, dispatch_pb2.Completion(), 4)
    with pytest.raises(InvalidReportError, match="after 3 of 4 steps"):
        check_completion(PROGRAM, dispatch_pb2.Completion(**good), 3)
    with pytest.raises(InvalidReportError, match="1 cache_bytes for 2 columns"):
        check_completion(PROGRAM, dispatch_pb2.Completion(cache_bytes=[1]), 4)
    for name in good:
        for seconds in (-0.1, math.nan, math.inf):
            with pytest.raises(InvalidReportError, match=f"{name} .* is no length of time"):
                check_completion(PROGRAM, dispatch_pb2.Completion(**(good | {name: seconds})), 4)


def test_a_record_replaces_only_what_was_decided_at_run_time() -> None:
    decided = decided_program(PROGRAM, DONE)
    by_step = [
        [decided.ops[number - 1] if number else None for number in step.ops]
        for step in decided.steps
    ]
    replay = plan_pb2.REASON_REPLAY
    full, cached = plan_pb2.Op(kind=FULL, reason=replay), plan_pb2.Op(kind=CACHED, reason=replay)
    fresh = plan_pb2.Op(kind=FULL, reason=replay, refresh=True)
    assert by_step == [[WARMUP, None], [cached, WARMUP], [STATIC, fresh], [full, cached]]
    assert list(decided.ops) == [WARMUP, cached, STATIC, fresh, full], "numbered by first use"
    assert decided.columns == PROGRAM.columns
    assert decided_program(decided, DONE) == decided
