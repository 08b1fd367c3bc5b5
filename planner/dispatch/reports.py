"""An executor's step reports against the plan it was given: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2, plan_pb2

_DECIDED = (plan_pb2.OP_KIND_FULL, plan_pb2.OP_KIND_CACHED)


class InvalidReportError(ValueError):
    """The executor did not do what the plan says; the message names the step."""


def new_steps(
    program: plan_pb2.Program, steps: Sequence[generation_pb2.StepOutcome], next_step: int
) -> list[generation_pb2.StepOutcome]:
    """The reported steps that are not stored yet.

    Raises:
        InvalidReportError: a step is missing before them, or its ops are not the plan's.
    """
    fresh: list[generation_pb2.StepOutcome] = []
    for outcome in steps:
        expected = next_step + len(fresh)
        if outcome.step < expected:
            continue
        if outcome.step > expected:
            raise InvalidReportError(f"step {outcome.step} is reported where {expected} is next")
        if outcome.step >= len(program.steps):
            raise InvalidReportError(
                f"step {outcome.step} is reported of a run of {len(program.steps)} steps"
            )
        _check(program, outcome)
        fresh.append(outcome)
    return fresh


def check_completion(
    program: plan_pb2.Program, completion: dispatch_pb2.Completion, next_step: int
) -> None:
    """Raises InvalidReportError where the run cannot have ended like this."""
    count = len(program.steps)
    if next_step != count:
        raise InvalidReportError(f"completion after {next_step} of {count} steps")
    if len(completion.cache_bytes) not in (0, len(program.columns)):
        held = f"{len(completion.cache_bytes)} cache_bytes"
        raise InvalidReportError(f"{held} for {len(program.columns)} columns")
    for name in ("denoise_seconds", "total_seconds", "reload_seconds"):
        seconds = getattr(completion, name)
        if not math.isfinite(seconds) or seconds < 0:
            raise InvalidReportError(f"{name} {seconds} is no length of time")


def _check(program: plan_pb2.Program, outcome: generation_pb2.StepOutcome) -> None:
    numbers = program.steps[outcome.step].ops
    if len(outcome.ops) != len(numbers):
        raise InvalidReportError(
            f"step {outcome.step} reports {len(outcome.ops)} ops, the plan has {len(numbers)}"
        )
    for column, (number, done) in enumerate(zip(numbers, outcome.ops, strict=True)):
        planned = program.ops[number - 1].kind if number else plan_pb2.OP_KIND_UNSPECIFIED
        if planned == plan_pb2.OP_KIND_ADAPTIVE:
            fits = done.kind in _DECIDED
        else:
            fits = done.kind == planned
        if not fits:
            raise InvalidReportError(
                f"step {outcome.step}, column {column}: "
                f"planned {_word(planned)}, executed {_word(done.kind)}"
            )
    if not math.isfinite(outcome.milliseconds) or outcome.milliseconds < 0:
        raise InvalidReportError(f"step {outcome.step} took {outcome.milliseconds} ms")


def _word(kind: plan_pb2.OpKind.ValueType) -> str:
    known = kind in plan_pb2.OpKind.values()
    return plan_pb2.OpKind.Name(kind).removeprefix("OP_KIND_") if known else str(kind)


def decided_program(
    program: plan_pb2.Program, steps: Sequence[generation_pb2.StepOutcome]
) -> plan_pb2.Program:
    """The program with every ADAPTIVE op replaced by what it was decided to be.

    Ops are numbered by first use, as the compiler does, so that the same ops give the same id.
    """
    decided = plan_pb2.Program()
    decided.CopyFrom(program)
    del decided.ops[:]
    del decided.steps[:]
    number: dict[bytes, int] = {}
    for planned, outcome in zip(program.steps, steps, strict=True):
        step = decided.steps.add()
        for position, done in zip(planned.ops, outcome.ops, strict=True):
            if not position:
                step.ops.append(0)
                continue
            op = _decided(program.ops[position - 1], done.kind)
            key = op.SerializeToString(deterministic=True)
            if key not in number:
                decided.ops.append(op)
                number[key] = len(decided.ops)
            step.ops.append(number[key])
    return decided


def _decided(op: plan_pb2.Op, kind: plan_pb2.OpKind.ValueType) -> plan_pb2.Op:
    if op.kind != plan_pb2.OP_KIND_ADAPTIVE:
        return op
    return plan_pb2.Op(kind=kind, reason=plan_pb2.REASON_REPLAY, refresh=op.refresh)
