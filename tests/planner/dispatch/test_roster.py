"""Who counts as connected."""

from __future__ import annotations

from dataclasses import replace

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


def test_an_executor_counts_as_what_it_is_loading_until_it_says_what_it_holds() -> None:
    clock = Clock()
    roster = Roster(3.0, clock)
    quantized = replace(OFFER.offered, placement=Placement("int8_weight_only"))
    loading = OFFER.reloaded(quantized)
    with roster.present(OFFER, asks_for_work=True):
        clock.now = 5.0
        assert roster.held_seconds("exec-1") == 5.0
        roster.expect(loading)
        assert roster.connected() == [loading]
    with roster.present(loading, asks_for_work=False):
        clock.now = 100.0
        assert roster.held_seconds("exec-1") == 100.0, "it has not said that it holds it"
    with roster.present(loading, asks_for_work=True):
        assert roster.held_seconds("exec-1") == 0.0
        clock.now = 101.0
    with roster.present(loading, asks_for_work=True):
        assert roster.held_seconds("exec-1") == 1.0
    with roster.present(OFFER, asks_for_work=True):
        assert roster.connected() == [OFFER]
        assert roster.held_seconds("exec-1") == 0.0
