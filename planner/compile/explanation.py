"""Why a step of a plan is computed or cached: the tests of the rule that it passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.compile.cache.columns import seen_by, target_rule
from planner.compile.compiler import Compilation, compile_loaded
from planner.compile.plan import Op, OpKind, Program, Reason
from planner.compile.request import Request
from planner.compile.rule import explain
from planner.config.acceleration import AccelerationConfig
from planner.config.environment import apply_environment
from planner.config.load import load
from planner.models.facts import ModelFacts


class StepRangeError(ValueError):
    """A run has no such step; the message says which ones it has."""


@dataclass(frozen=True, slots=True)
class RuleTest:
    """What one test of the rule says; the one with a ``kind`` decides. ``key`` is a YAML key."""

    key: str
    says: str
    kind: OpKind | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What led to one column's op; without an ``op`` the column does not run in the step.

    ``steps`` are those in which the column runs. The tests count from step ``counted_from``: the
    first of them, or the last one before which the cache was forgotten. No tests: no cache.
    """

    op: Op | None
    steps: range
    counted_from: int = 0
    tests: tuple[RuleTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """``accounts`` are in the order of the program's columns; none without a program."""

    compilation: Compilation
    step: int
    accounts: tuple[Account, ...]


def explain_step(
    config: str | bytes,
    model: ModelFacts,
    request: Request,
    step: int,
    environment: Mapping[str, str] | None = None,
) -> Explanation:
    """Compiles a config and says for every column which tests decided a step.

    Raises:
        StepRangeError: the run has no such step.
    """
    source = load(config)
    apply_environment(source, environment or {})
    compilation = compile_loaded(source, model, request)
    program = compilation.program
    if program is None:
        return Explanation(compilation, step, ())
    last = program.num_inference_steps - 1
    if not 0 <= step <= last:
        raise StepRangeError(f"there is no step {step}; this run has the steps 0 to {last}")
    tests = _tests_by_target(source, model, program, step)
    accounts = []
    for c, column in enumerate(program.columns):
        own = model.steps_of(column.target, program.num_inference_steps)
        op = program.steps[step][c]
        if op is None:
            accounts.append(Account(None, own))
        else:
            start = _counted_from(program, c, own.start, step)
            accounts.append(Account(op, own, start, tests[column.target]))
    return Explanation(compilation, step, tuple(accounts))


def _tests_by_target(
    written: AccelerationConfig, model: ModelFacts, program: Program, step: int
) -> dict[str, tuple[RuleTest, ...]]:
    steps = program.num_inference_steps
    forwards = len({column.branch for column in program.columns})
    found = {}
    for target in model.architecture.targets:
        own = model.steps_of(target.name, steps)
        source = seen_by(written, model, target.name)
        found[target.name] = (
            tuple(
                RuleTest(verdict.key, verdict.says(), verdict.kind, verdict.reason)
                for verdict in explain(
                    target_rule(source, source.cache, own, steps, forwards),
                    len(own),
                    step - own.start,
                )
            )
            if source.cache is not None and step in own
            else ()
        )
    return found


def _counted_from(program: Program, column: int, start: int, step: int) -> int:
    refreshed = (
        i for i in range(step, start, -1) if (op := program.steps[i][column]) and op.refresh
    )
    return next(refreshed, start)
