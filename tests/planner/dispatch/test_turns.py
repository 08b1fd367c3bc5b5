"""Whose turn it is, where an executor may load its model anew."""

from __future__ import annotations

from dataclasses import replace

from planner.compile.plan import Placement
from planner.dispatch.matching import Offer, Requirement
from planner.dispatch.turns import next_work
from planner.models.resolve import from_name
from planner.store.values import Waiting

FACTS = from_name("black-forest-labs/FLUX.1-dev")
PLAIN = Requirement("flux", FACTS.architecture, 1, Placement())
INT8 = replace(PLAIN, placement=Placement("int8_weight_only"))
FLOAT8 = replace(PLAIN, placement=Placement("float8_per_row"))
KNOWN = {each.key: each for each in (PLAIN, INT8, FLOAT8)}
OFFER = Offer("mine", FACTS, PLAIN, "float32", "cpu", allow_reload=True)


def turn(
    *waiting: tuple[Requirement, int, float],
    offer: Offer = OFFER,
    others: tuple[Offer, ...] = (),
    held_seconds: float = 1e6,
) -> Requirement | None:
    """Of work by requirement, number and seconds."""
    queued = [Waiting(needed.key, number, 0.0, seconds) for needed, number, seconds in waiting]
    work = next_work(
        offer, others, queued, KNOWN.__getitem__, patience=60.0, held_seconds=held_seconds
    )
    return None if work is None else KNOWN[work.key]


def test_what_an_executor_holds_goes_first_and_else_the_oldest_it_would_reload_for() -> None:
    assert turn() is None
    assert turn((INT8, 1, 9.0), (PLAIN, 2, 1.0)) == PLAIN
    assert turn((INT8, 1, 9.0)) == INT8
    assert turn((INT8, 1, 9.0), offer=replace(OFFER, allow_reload=False)) is None


def test_what_its_device_cannot_do_is_never_its_turn() -> None:
    assert turn((FLOAT8, 1, 999.0)) is None
    assert turn((FLOAT8, 1, 999.0), (INT8, 2, 0.0)) == INT8
    able = replace(OFFER, device="sm90", dtype="bfloat16")
    assert turn((FLOAT8, 1, 999.0), offer=able) == FLOAT8


def test_work_that_another_holds_waits_for_that_one() -> None:
    other = Offer("other", FACTS, INT8)
    assert turn((INT8, 1, 999.0), others=(other,)) is None
    assert turn((INT8, 1, 999.0), others=(replace(other, offered=FLOAT8),)) == INT8


def test_work_is_overtaken_for_a_bounded_time_and_reloads_are_as_far_apart() -> None:
    both = (INT8, 1, 61.0), (PLAIN, 2, 61.0)
    assert turn(*both) == INT8
    assert turn(*both, held_seconds=59.0) == PLAIN
    assert turn((INT8, 1, 59.0), (PLAIN, 2, 59.0)) == PLAIN
    assert turn((INT8, 1, 61.0), held_seconds=0.0) == INT8, "there is nothing else to do"
    assert turn((PLAIN, 1, 61.0), (INT8, 2, 61.0)) == PLAIN, "it overtakes nothing older"
