"""The DBCache rule, run ahead of time: which steps it decides by itself, which it leaves open.

The rule's runtime test depends on residual diffs that only the executor sees. Everything else it
looks at (warm-up, mask, limits) is known, so the compiler follows every state that the counters
can be in and turns a step into FULL or CACHED wherever all of them agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from planner.compile.counters import Bounds, Counters
from planner.compile.plan import AdaptiveRule, Op, OpKind, Program, Reason


@dataclass(frozen=True, slots=True)
class CacheRule:
    """What of a ``cache_config`` decides over computing and caching.

    ``mask`` has one entry a step (1 computes). ``refresh_steps`` are the steps before which the
    cache is forgotten, after which warm-up and mask start over.
    """

    test: AdaptiveRule
    max_warmup_steps: int
    warmup_interval: int
    mask: tuple[int, ...] | None = None
    static_mask: bool = False
    refresh_steps: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one test of the rule says about a step; without a ``kind`` it leaves it to the next.

    ``key`` is the YAML key that the test is about.
    """

    key: str
    says: Callable[[], str]
    kind: OpKind | None = None
    reason: Reason | None = None


class _Situation(NamedTuple):
    """All that decides over a step besides the rule itself; steps count from the last refresh."""

    first: bool
    warming: bool
    skipped: bool
    masked: bool
    exhausted: Reason | None
    may_all_cache: bool


def schedule(rule: CacheRule, steps: int) -> tuple[tuple[Op, ...], Bounds]:
    """One op a step, for one column, with the bounds of them all. Equal ops are one object."""
    counters = Counters()
    ops = tuple([op for _, op in _follow(rule, steps, counters)])
    return ops, counters.bounds(steps)


def explain(rule: CacheRule, steps: int, step: int) -> list[Verdict]:
    """The tests that a step passes, in order; the last one decides it."""
    followed = enumerate(_follow(rule, steps, Counters()))
    situation = next(situation for i, (situation, _) in followed if i == step)
    return _verdicts(rule, situation)


def _follow(rule: CacheRule, steps: int, counters: Counters) -> Iterator[tuple[_Situation, Op]]:
    test, mask, warmup = rule.test, rule.mask, _warmup(rule)
    # There are few situations, and many steps.
    ops: dict[tuple[_Situation, bool], Op] = {}
    start = 0
    for step in range(steps):
        refresh = step in rule.refresh_steps
        if refresh:
            start = step
            counters.forget()
        age = step - start
        situation = _Situation(
            first=age == 0,
            warming=age < warmup,
            skipped=age % rule.warmup_interval != 0,
            masked=mask is not None and mask[age] != 1,
            exhausted=counters.exhausted(test),
            may_all_cache=counters.may_all_cache(test),
        )
        op = ops.get((situation, refresh))
        if op is None:
            op = _op(_verdicts(rule, situation)[-1], rule, refresh=refresh)
            ops[situation, refresh] = op
        counters.advance(op)
        yield situation, op


def _verdicts(rule: CacheRule, situation: _Situation) -> list[Verdict]:
    """Up to the first that decides."""
    verdicts = []
    for verdict in _tests(rule, situation):
        verdicts.append(verdict)
        if verdict.kind is not None:
            break
    return verdicts


def _op(verdict: Verdict, rule: CacheRule, *, refresh: bool) -> Op:
    assert verdict.kind is not None
    assert verdict.reason is not None
    adaptive = rule.test if verdict.kind is OpKind.ADAPTIVE else None
    return Op(verdict.kind, verdict.reason, adaptive, refresh)


def bounds(ops: Iterable[Op]) -> Bounds:
    """How many of the ops of one column compute every block, at least and at most."""
    counters = Counters()
    steps = 0
    for op in ops:
        steps += 1
        if op.refresh:
            counters.forget()
        counters.advance(op)
    return counters.bounds(steps)


def column_bounds(program: Program) -> list[Bounds]:
    """The bounds of every column, over the steps in which it runs."""
    columns = program.by_column()
    distinct = {id(ops): filter(None, ops) for ops in columns}
    found = {key: bounds(ops) for key, ops in distinct.items()}
    return [found[id(ops)] for ops in columns]


def _tests(rule: CacheRule, situation: _Situation) -> Iterator[Verdict]:
    """The tests of Cache-DiT in its order; the first that decides ends them."""
    test = rule.test
    full, cached = OpKind.FULL, OpKind.CACHED
    warmup = _warmup(rule)
    cut = " (cut to the leading ones of the mask)" if warmup < rule.max_warmup_steps else ""
    key = "max_warmup_steps"
    if not situation.warming:
        yield Verdict(key, lambda: f"warm-up ends before step {max(warmup, 0)}{cut}")
    elif situation.skipped:
        every = rule.warmup_interval
        yield Verdict(
            "warmup_interval", lambda: f"warm-up computes one step in {every}, not this one"
        )
    else:
        yield Verdict(key, lambda: f"within the {warmup} warm-up steps{cut}", full, Reason.WARMUP)
    key = "steps_computation_mask"
    if rule.mask is None:
        yield Verdict(key, lambda: "there is no mask")
    elif not situation.masked:
        yield Verdict(key, lambda: "the mask says compute", full, Reason.SCM_COMPUTE)
    else:
        yield Verdict(key, lambda: "the mask lets the step be cached")
        key = "steps_computation_policy"
        if rule.static_mask:
            yield Verdict(key, lambda: "static: the mask decides", cached, Reason.SCM_CACHE)
        yield Verdict(key, lambda: "dynamic: the mask permits, the rest of the rule decides")
    for key, limit, reason in (
        ("max_cached_steps", test.max_cached_steps, Reason.CACHED_STEPS_EXHAUSTED),
        (
            "max_continuous_cached_steps",
            test.max_continuous_cached_steps,
            Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED,
        ),
    ):
        if situation.exhausted is reason:
            said = f"{limit} steps are cached by now, whatever the diffs were"
            yield Verdict(key, partial(str, said), full, reason)
        elif limit is None:
            yield Verdict(key, lambda: "no limit")
        else:
            yield Verdict(key, partial("not reached for sure: the limit is {}".format, limit))
    accumulated = test.max_accumulated_residual_diff_threshold
    if accumulated is not None:
        said = f"decided at run time: computed once the diffs sum up to {accumulated:g}"
        yield Verdict("max_accumulated_residual_diff_threshold", partial(str, said))
    threshold = test.residual_diff_threshold
    key = "residual_diff_threshold"
    if threshold <= 0:
        said = f"{threshold:g} never caches"
        yield Verdict(key, partial(str, said), full, Reason.THRESHOLD_NEVER)
    if situation.first:
        said = "nothing is computed yet that a diff could be taken to"
        yield Verdict(key, partial(str, said), full, Reason.NO_REFERENCE)
    if threshold >= 1 and situation.may_all_cache:
        said = f"{threshold:g} caches whenever the limits allow"
        yield Verdict(key, partial(str, said), cached, Reason.THRESHOLD_ALWAYS)
    yield Verdict(
        key,
        lambda: f"decided at run time: cached if the residual diff is below {threshold:g}",
        OpKind.ADAPTIVE,
        Reason.DBCACHE,
    )


def _warmup(rule: CacheRule) -> int:
    """Warm-up ends at the latest where a mask first lets a step be cached."""
    if rule.mask is None:
        return rule.max_warmup_steps
    ones = rule.mask.index(0) if 0 in rule.mask else len(rule.mask)
    return min(rule.max_warmup_steps, ones)
