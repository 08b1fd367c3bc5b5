"""Who counts as connected."""

from __future__ import annotations

from planner.compile.plan import Placement
from planner.dispatch.matching import Offer, Requirement
from planner.dispatch.roster import Roster
from planner.models.resolve import from_name

FACTS = from_name("black-forest-labs/FLUX.1-dev")
OFFER = Offer("exec-1", FACTS, Requirement("flux", FACTS.architecture, 1, Placement()))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_executor_is_connected_during_its_calls_and_a_grace_after() -> None:
    clock = Clock()
    roster = Roster(3.0, clock)
    with roster.present(OFFER, asks_for_work=True):
        clock.now = 100.0
        assert roster.connected() == [OFFER]
        assert roster.is_asking("exec-1")
    clock.now = 102.9
    assert roster.connected() == [OFFER]
    assert not roster.is_asking("exec-1")
    with roster.present(OFFER, asks_for_work=False):
        clock.now = 200.0
        assert roster.connected() == [OFFER]
        assert not roster.is_asking("exec-1")
    clock.now = 203.0
    assert roster.connected() == []


def test_a_newer_request_for_work_supersedes_an_older() -> None:
    roster = Roster(3.0)
    with roster.present(OFFER, asks_for_work=True) as older:
        with roster.present(OFFER, asks_for_work=False):
            assert not older.superseded
        with roster.present(OFFER, asks_for_work=True) as newer:
            assert older.superseded
            assert not newer.superseded
            assert roster.is_asking("exec-1")
