"""How many executors KEDA makes of a metric: ceil(metric / target)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.scaling.demand import Backlog, demand

seconds = st.floats(0, 1e5)
backlogs = st.builds(
    Backlog,
    st.lists(st.tuples(seconds, st.integers(1, 500)), max_size=5).map(tuple),
    st.lists(seconds, max_size=20).map(tuple),
)


def executors(backlog: Backlog, target: int) -> int:
    """As KEDA and the autoscaler count, in thousandths, cut off."""
    return math.ceil(int(demand(backlog, target) * 1000) / (target * 1000))


@pytest.mark.parametrize(
    ("queued", "running", "wanted"),
    [
        ((), (), 0),
        (((5.0, 1),), (), 1),
        (((5.0, 12),), (), 1),
        (((5.0, 13),), (), 2),
        (((5.0, 120),), (), 10),
        # Runs that are nearly over keep their executors, and these take from the queue.
        ((), (1.0, 1.0), 2),
        (((5.0, 12),), (1.0, 1.0), 2),
        (((5.0, 24),), (1.0, 1.0), 3),
        # A film of ten minutes needs one executor, not ten.
        (((600.0, 1),), (), 1),
        (((600.0, 3),), (600.0, 600.0), 5),
    ],
)
def test_a_minute_of_work_an_executor(
    queued: tuple[tuple[float, int], ...], running: tuple[float, ...], wanted: int
) -> None:
    assert executors(Backlog(queued, running), 60) == wanted


@given(backlogs, st.integers(1, 86_400))
def test_never_fewer_than_run_and_never_more_than_there_are_runs(
    backlog: Backlog, target: int
) -> None:
    runs = len(backlog.running) + sum(count for _, count in backlog.queued)
    assert len(backlog.running) <= executors(backlog, target) <= runs


@given(backlogs, st.integers(1, 86_400), seconds)
def test_more_work_never_asks_for_fewer(backlog: Backlog, target: int, more: float) -> None:
    larger = Backlog((*backlog.queued, (more, 1)), backlog.running)
    assert demand(larger, target) >= demand(backlog, target)
