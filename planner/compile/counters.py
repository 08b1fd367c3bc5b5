"""The counters of the DBCache rule ahead of time: every state that they can be in at once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from planner.compile.plan import AdaptiveRule, Op, OpKind, Reason


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fewest and most steps that are computed, whatever the residual diffs turn out to be."""

    min_computed: int
    max_computed: int


class Counters:
    """Every state that a column's counters can be in, told apart by the length of the last streak.

    ``_states`` holds that length with the fewest cached steps on any way to it, in order of length,
    which is the order of the fewest steps too: a limit forbids caching in the last states, if in
    any. Both numbers are less ``_age``, by which they grow at once. The most cached steps are
    those of some state: ``_peak`` is its streak, the shortest if there are several.
    """

    def __init__(self) -> None:
        self._forgotten_min = self._forgotten_max = 0
        self._start()

    def _start(self) -> None:
        self._cached_min = self._cached_max = 0
        self._compute()

    def _compute(self) -> None:
        self._age = self._peak = 0
        self._states = deque([(0, self._cached_min)])

    def forget(self) -> None:
        """Starts over after a refresh."""
        self._forgotten_min += self._cached_min
        self._forgotten_max += self._cached_max
        self._start()

    def bounds(self, steps: int) -> Bounds:
        return Bounds(
            min_computed=steps - self._forgotten_max - self._cached_max,
            max_computed=steps - self._forgotten_min - self._cached_min,
        )

    def exhausted(self, test: AdaptiveRule) -> Reason | None:
        """The limit that forbids caching in every state, if there is one."""
        return self._limit(test, self._states[0][0] + self._age, self._cached_min)

    def may_all_cache(self, test: AdaptiveRule) -> bool:
        """Whether no limit forbids caching in any state."""
        return self._limit(test, self._states[-1][0] + self._age, self._cached_max) is None

    def advance(self, op: Op) -> None:
        if op.kind is OpKind.FULL:
            self._compute()
        elif op.kind is OpKind.CACHED:
            self._age += 1
            self._cached_min += 1
            self._cached_max += 1
        else:
            assert op.adaptive is not None
            self._test(op.adaptive)

    def _test(self, test: AdaptiveRule) -> None:
        """After a test every state may have computed, and those that no limit stops have cached."""
        states, age, most = self._states, self._age, test.max_cached_steps
        while states and self._limit(test, states[-1][0] + age, states[-1][1] + age) is not None:
            states.pop()
        peak_cached = bool(states) and self._peak <= states[-1][0]
        self._age = age = age + 1
        states.appendleft((-age, self._cached_min - age))
        if peak_cached and (most is None or self._cached_max < most):
            self._cached_max += 1
        else:
            # No state has more than the one that has computed.
            self._peak = -age

    @staticmethod
    def _limit(test: AdaptiveRule, streak: int, cached: int) -> Reason | None:
        if test.max_cached_steps is not None and cached >= test.max_cached_steps:
            return Reason.CACHED_STEPS_EXHAUSTED
        limit = test.max_continuous_cached_steps
        if limit is not None and streak >= limit:
            return Reason.CONTINUOUS_CACHED_STEPS_EXHAUSTED
        return None
