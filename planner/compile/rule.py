"""The DBCache rule, run ahead of time: which steps it decides by itself, which it leaves open.

The rule's runtime test depends on residual diffs that only the executor sees. Everything else it
looks at (warm-up, mask, limits) is known, so the compiler follows every state that the counters
can be in and turns a step into FULL or CACHED wherever all of them agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

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
class Bounds:
    """Fewest and most steps that are computed, whatever the residual diffs turn out to be."""

    min_computed: int
    max_computed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one test of the rule says about a step; without a ``kind`` it leaves it to the next.

    ``key`` is the YAML key that the test is about.
    """

    key: str
    says: Callable[[], str]
    kind: OpKind | None = None
    reason: Reason | None = None


def schedule(rule: CacheRule, steps: int) -> tuple[Op, ...]:
    """One op a step, for one column."""
    return tuple(op for op, _ in _follow(rule, steps))


def explain(rule: CacheRule, steps: int, step: int) -> list[Verdict]:
    """The tests that a step passes, in order; the last one decides it."""
    return next(verdicts for i, (_, verdicts) in enumerate(_follow(rule, steps)) if i == step)


def _follow(rule: CacheRule, steps: int) -> Iterator[tuple[Op, list[Verdict]]]:
    counters = _Counters()
    start = 0
    for step in range(steps):
        refresh = step in rule.refresh_steps
        if refresh:
            start = step
            counters = _Counters()
        verdicts = []
        for verdict in _tests(rule, step - start, counters):
            verdicts.append(verdict)
            if verdict.kind is not None:
                break
        op = _op(verdicts[-1], rule, refresh=refresh)
        counters.advance(op)
        yield op, verdicts


def _op(verdict: Verdict, rule: CacheRule, *, refresh: bool) -> Op:
    assert verdict.kind is not None
    assert verdict.reason is not None
    adaptive = rule.test if verdict.kind is OpKind.ADAPTIVE else None
    return Op(verdict.kind, verdict.reason, adaptive, refresh)


def bounds(ops: Iterable[Op]) -> Bounds:
    """How many of the ops of one column compute every block, at least and at most."""
    counters = _Counters()
    cached_min = cached_max = steps = 0
    for op in ops:
        steps += 1
        if op.refresh:
            cached_min += counters.cached_min
            cached_max += counters.cached_max
            counters = _Counters()
        counters.advance(op)
    return Bounds(
        min_computed=steps - cached_max - counters.cached_max,
        max_computed=steps - cached_min - counters.cached_min,
    )


def column_bounds(program: Program) -> list[Bounds]:
    """The bounds of every column, over the steps in which it runs."""
    return [
        bounds(op for step in program.steps if (op := step[c]) is not None)
        for c in range(len(program.columns))
    ]


def _tests(rule: CacheRule, step: int, counters: _Counters) -> Iterator[Verdict]:
    """The tests of Cache-DiT in its order; the first that decides ends them."""
    mask, test = rule.mask, rule.test
    full, cached = OpKind.FULL, OpKind.CACHED
    warmup = rule.max_warmup_steps if mask is None else min(rule.max_warmup_steps, _ones(mask))
    cut = " (cut to the leading ones of the mask)" if warmup < rule.max_warmup_steps else ""
    key = "max_warmup_steps"
    if step >= warmup:
        yield Verdict(key, lambda: f"warm-up ends before step {max(warmup, 0)}{cut}")
    elif step % rule.warmup_interval:
        every = rule.warmup_interval
        yield Verdict(
            "warmup_interval", lambda: f"warm-up computes one step in {every}, not this one"
        )
    else:
        yield Verdict(key, lambda: f"within the {warmup} warm-up steps{cut}", full, Reason.WARMUP)
    key = "steps_computation_mask"
    if mask is None:
        yield Verdict(key, lambda: "there is no mask")
    elif mask[step] == 1:
        yield Verdict(key, lambda: "the mask says compute", full, Reason.SCM_COMPUTE)
    else:
        yield Verdict(key, lambda: "the mask lets the step be cached")
        key = "steps_computation_policy"
        if rule.static_mask:
            yield Verdict(key, lambda: "static: the mask decides", cached, Reason.SCM_CACHE)
        yield Verdict(key, lambda: "dynamic: the mask permits, the rest of the rule decides")
    exhausted = counters.exhausted(test)
    for key, limit, reason in (
        ("max_cached_steps", test.max_cached_steps, Reason.CACHED_STEPS_EXHAUSTED),
        (
            "max_continuous_cached_steps",
            test.max_continuous_cached_steps,
            Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED,
        ),
    ):
        if exhausted is reason:
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
    if step == 0:
        said = "nothing is computed yet that a diff could be taken to"
        yield Verdict(key, partial(str, said), full, Reason.NO_REFERENCE)
    if threshold >= 1 and counters.may_all_cache(test):
        said = f"{threshold:g} caches whenever the limits allow"
        yield Verdict(key, partial(str, said), cached, Reason.THRESHOLD_ALWAYS)
    yield Verdict(
        key,
        lambda: f"decided at run time: cached if the residual diff is below {threshold:g}",
        OpKind.ADAPTIVE,
        Reason.DBCACHE,
    )


def _ones(mask: tuple[int, ...]) -> int:
    """Length of the run of ones that a mask begins with."""
    return mask.index(0) if 0 in mask else len(mask)


class _Counters:
    """Every state that a column's counters can be in: cached steps by length of the last streak.

    ``_cached[streak]`` holds the fewest and the most cached steps on any way to that streak.
    """

    def __init__(self) -> None:
        self._cached = {0: (0, 0)}

    @property
    def cached_min(self) -> int:
        return min(self._cached.values())[0]

    @property
    def cached_max(self) -> int:
        return max(high for _, high in self._cached.values())

    def exhausted(self, test: AdaptiveRule) -> Reason | None:
        """The limit that forbids caching in every state, if there is one."""
        reasons = [self._limit(test, streak, low) for streak, (low, _) in self._cached.items()]
        return reasons[0] if None not in reasons else None

    def may_all_cache(self, test: AdaptiveRule) -> bool:
        """Whether no limit forbids caching in any state."""
        return all(
            self._limit(test, streak, high) is None for streak, (_, high) in self._cached.items()
        )

    def advance(self, op: Op) -> None:
        match op.kind:
            case OpKind.FULL:
                self._cached = {0: (self.cached_min, self.cached_max)}
            case OpKind.CACHED:
                self._cached = {
                    streak + 1: (low + 1, high + 1) for streak, (low, high) in self._cached.items()
                }
            case OpKind.ADAPTIVE:
                assert op.adaptive is not None
                self._cached = self._after_test(op.adaptive)

    def _after_test(self, test: AdaptiveRule) -> dict[int, tuple[int, int]]:
        most, longest = test.max_cached_steps, test.max_continuous_cached_steps
        after = {0: (self.cached_min, self.cached_max)}
        for streak, (low, high) in self._cached.items():
            if (most is not None and low >= most) or (longest is not None and streak >= longest):
                continue
            low, high = low + 1, high + 1 if most is None or high < most else most
            # Without a limit on streaks their length does not matter: one state stands for all.
            following = 1 if longest is None else streak + 1
            if following in after:
                known_low, known_high = after[following]
                low, high = min(known_low, low), max(known_high, high)
            after[following] = low, high
        return after

    @staticmethod
    def _limit(test: AdaptiveRule, streak: int, cached: int) -> Reason | None:
        if test.max_cached_steps is not None and cached >= test.max_cached_steps:
            return Reason.CACHED_STEPS_EXHAUSTED
        limit = test.max_continuous_cached_steps
        if limit is not None and streak >= limit:
            return Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED
        return None
