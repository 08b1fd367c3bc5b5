"""How a refusal and a hint word what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.plan import Placement, PrecisionRule
from planner.diagnostics import Severity
from planner.dispatch.matching import Offer, Requirement
from planner.dispatch.wording import reload_hint, why_none_matches, words
from planner.models.resolve import from_name

FACTS = from_name("black-forest-labs/FLUX.1-dev")
PLAIN = Requirement("flux", FACTS.architecture, 1, Placement())
INT8 = replace(PLAIN, placement=Placement("int8_weight_only"))
FLOAT8 = replace(PLAIN, placement=Placement("float8_per_row"))


def offers(*names: str, held: Requirement = PLAIN, reload: bool = False) -> list[Offer]:
    return [Offer(name, FACTS, held, "bfloat16", "sm80", allow_reload=reload) for name in names]


def test_one_match_among_many_is_enough() -> None:
    wide = replace(PLAIN, world_size=2)
    assert why_none_matches(PLAIN, [*offers("a", held=wide), *offers("b")]) is None
    assert why_none_matches(INT8, [*offers("a", held=wide), *offers("b", reload=True)]) is None
    assert why_none_matches(PLAIN, []) == "no executor is connected"


@pytest.mark.parametrize(
    ("needed", "connected", "why"),
    [
        (
            INT8,
            offers("gpu-0", "gpu-1"),
            "no connected executor matches: the plan wants int8_weight_only, "
            "the 2 connected executors hold bfloat16 (gpu-0, gpu-1)",
        ),
        (
            INT8,
            [
                *offers("wide", held=replace(PLAIN, world_size=2)),
                *offers("gpu-1", "gpu-0"),
                *offers("else", held=replace(PLAIN, model="z")),
            ],
            "no connected executor matches: the plan wants int8_weight_only, "
            "2 executors hold bfloat16 (gpu-0, gpu-1); "
            "the plan wants world size 1 and int8_weight_only, wide has world size 2 and bfloat16; "
            "the plan wants model 'flux' and int8_weight_only, else has model 'z' and bfloat16",
        ),
        (
            FLOAT8,
            offers("gpu-0", reload=True),
            "no connected executor matches: the plan wants float8_per_row, gpu-0 holds bfloat16, "
            "and float8_per_row needs a CUDA device of at least sm89, not sm80",
        ),
        (
            replace(PLAIN, attention_backend="sage"),
            offers("gpu-0", reload=True),
            "no connected executor matches: the plan wants attention backend sage, "
            "gpu-0 has attention backends native",
        ),
        (
            PLAIN,
            offers("a", "b", held=replace(PLAIN, model="z")),
            "model 'flux' is not served by any of 2 connected executors: "
            "the 2 connected executors have model 'z' (a, b)",
        ),
    ],
)
def test_executors_that_differ_alike_are_named_together(
    needed: Requirement, connected: list[Offer], why: str
) -> None:
    assert why_none_matches(needed, connected) == why


def test_a_refusal_is_bounded_however_many_executors_there_are() -> None:
    alike = why_none_matches(INT8, offers(*(f"gpu-{i:03}" for i in range(500))))
    assert alike is not None
    assert "the 500 connected executors hold bfloat16 (gpu-000, " in alike
    assert alike.endswith("gpu-007 and 492 more)")
    unlike = [
        offer
        for i in range(2, 500)
        for offer in offers(f"gpu-{i:03}", held=replace(PLAIN, world_size=i))
    ]
    why = why_none_matches(PLAIN, unlike)
    assert why is not None
    assert len(why) < 600
    assert why.endswith(f"and {498 - why.count('wants')} more")
    long = why_none_matches(replace(INT8, model="m" * 500), offers("n" * 500, "o" * 500))
    assert long is not None
    assert len(long) < 600


def test_words_are_bounded_however_much_differs() -> None:
    rules = tuple(PrecisionRule(f"layer-{i:03}" * 20, "int8_weight_only") for i in range(500))
    odd = offers("odd", held=replace(FLOAT8, placement=Placement("float8_per_row", (), (), rules)))
    why = why_none_matches(FLOAT8, odd)
    assert why is not None
    assert len(why) < 600
    found = words(FLOAT8, odd[0])
    assert len(found) == 17
    assert found[-1] == "and 485 more differences"
    assert all(len(each) < 400 for each in found)
    few = tuple(PrecisionRule(f"l{i}", "int8_weight_only") for i in range(6))
    held = replace(FLOAT8, placement=Placement("float8_per_row", (), (), few))
    hint = reload_hint(INT8, offers("odd", held=held, reload=True))
    assert hint is not None
    assert hint.message.endswith(
        "it holds float8_per_row and layers l0 in int8_weight_only and layers l1 in "
        "int8_weight_only and layers l2 in int8_weight_only and 3 more"
    )


def test_a_hint_says_who_loads_its_model_anew_and_what_changes() -> None:
    hint = reload_hint(INT8, [*offers("gpu-1", reload=True), *offers("gpu-0")])
    assert hint is not None
    assert (hint.severity, hint.code) == (Severity.HINT, "needs-reload")
    assert hint.message == (
        "executor gpu-1 loads its model anew for this plan, which wants int8_weight_only; "
        "it holds bfloat16"
    )
    several = reload_hint(INT8, offers("b", "a", "c", reload=True))
    assert several is not None
    assert several.message.startswith("executor a, or one of 2 others, loads its model anew")
    assert reload_hint(INT8, [*offers("a", reload=True), *offers("b", held=INT8)]) is None
    assert reload_hint(INT8, offers("a")) is None
    assert reload_hint(FLOAT8, offers("a", reload=True)) is None


def test_the_words_of_one_executor_are_nothing_where_it_matches() -> None:
    [offer] = offers("gpu-0")
    assert words(PLAIN, offer) == []
    assert words(FLOAT8, offer) == [
        "the plan wants float8_per_row, it holds bfloat16",
        "float8_per_row needs a CUDA device of at least sm89, not sm80",
    ]
