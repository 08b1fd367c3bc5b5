"""The DBCache rule, run ahead of time: which steps it decides by itself, which it leaves open.

The rule's runtime test depends on residual diffs that only the executor sees. Everything else it
looks at (warm-up, mask, limits) is known, so the compiler follows every state that the counters
can be in and turns a step into FULL or CACHED wherever all of them agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from planner.compile.plan import AdaptiveRule, Op, OpKind, Reason


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


def schedule(rule: CacheRule, steps: int) -> tuple[Op, ...]:
    """One op a step, for one column."""
    counters = _Counters()
    ops = []
    start = 0
    for step in range(steps):
        refresh = step in rule.refresh_steps
        if refresh:
            start = step
            counters = _Counters()
        op = _decide(rule, step - start, counters, refresh=refresh)
        counters.advance(op)
        ops.append(op)
    return tuple(ops)


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


def _decide(rule: CacheRule, step: int, counters: _Counters, *, refresh: bool) -> Op:
    """The first rule that applies, in the order in which Cache-DiT tests them."""

    def full(reason: Reason) -> Op:
        return Op(OpKind.FULL, reason, refresh=refresh)

    def cached(reason: Reason) -> Op:
        return Op(OpKind.CACHED, reason, refresh=refresh)

    warmup = rule.max_warmup_steps
    if rule.mask is not None:
        warmup = min(warmup, _leading_ones(rule.mask))
    if step < warmup and step % rule.warmup_interval == 0:
        return full(Reason.WARMUP)
    if rule.mask is not None:
        if rule.mask[step] == 1:
            return full(Reason.SCM_COMPUTE)
        if rule.static_mask:
            return cached(Reason.SCM_CACHE)
    exhausted = counters.exhausted(rule.test)
    if exhausted is not None:
        return full(exhausted)
    if rule.test.residual_diff_threshold <= 0:
        return full(Reason.THRESHOLD_NEVER)
    if step == 0:
        return full(Reason.NO_REFERENCE)
    if rule.test.residual_diff_threshold >= 1 and counters.may_all_cache(rule.test):
        return cached(Reason.THRESHOLD_ALWAYS)
    return Op(OpKind.ADAPTIVE, Reason.DBCACHE, adaptive=rule.test, refresh=refresh)


def _leading_ones(mask: tuple[int, ...]) -> int:
    return mask.index(0) if 0 in mask else len(mask)


class _Counters:
    """Every state that a column's counters can be in: cached steps by length of the last streak.

    ``_cached[streak]`` holds the fewest and the most cached steps on any way to that streak.
    """

    def __init__(self) -> None:
        self._cached = {0: (0, 0)}

    @property
    def cached_min(self) -> int:
        return min(low for low, _ in self._cached.values())

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
        most = test.max_cached_steps
        after = {0: (self.cached_min, self.cached_max)}
        for streak, (low, high) in self._cached.items():
            if self._limit(test, streak, low) is None:
                limited = high + 1 if most is None else min(high + 1, most)
                # Without a limit on streaks their length does not matter: one state stands for all.
                following = 1 if test.max_continuous_cached_steps is None else streak + 1
                known = after.get(following, (low + 1, limited))
                after[following] = (min(known[0], low + 1), max(known[1], limited))
        return after

    @staticmethod
    def _limit(test: AdaptiveRule, streak: int, cached: int) -> Reason | None:
        if test.max_cached_steps is not None and cached >= test.max_cached_steps:
            return Reason.CACHED_STEPS_EXHAUSTED
        limit = test.max_continuous_cached_steps
        if limit is not None and streak >= limit:
            return Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED
        return None
