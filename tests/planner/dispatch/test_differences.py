"""In what plans and executors differ, and what a reload could change of that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.plan import ComponentQuantization, Placement, PrecisionRule
from planner.dispatch.differences import (
    Difference,
    could_reload,
    differences,
    hindrances,
    lacks,
    listed,
)
from planner.dispatch.matching import Offer, Requirement
from planner.models.resolve import from_name

FACTS = from_name("black-forest-labs/FLUX.1-dev")
PLAIN = Requirement("flux", FACTS.architecture, 4, Placement())
OFFER = Offer("gpu-0", FACTS, PLAIN, "bfloat16", "sm90", allow_reload=True)
ENCODERS = Placement(
    components=(
        ComponentQuantization("text_encoder", "int8_weight_only"),
        ComponentQuantization("transformer", "float8_per_row", ("norm_out",)),
    )
)


def between(wanted: Placement, held: Placement) -> list[tuple[str, str]]:
    offer = replace(OFFER, offered=replace(PLAIN, placement=held))
    found = differences(replace(PLAIN, placement=wanted), offer)
    assert all(each.held for each in found)
    return [(each.wants, each.has) for each in found]


@pytest.mark.parametrize(
    ("wanted", "held", "found"),
    [
        (Placement("int8_weight_only"), Placement(), [("int8_weight_only", "bfloat16")]),
        (Placement(), Placement("int8_weight_only"), [("no quantization", "int8_weight_only")]),
        (
            Placement("int8_per_row", ("ff", "norm_out")),
            Placement("int8_per_row"),
            [("int8_per_row without layers ff, norm_out", "int8_per_row in all layers")],
        ),
        (
            ENCODERS,
            Placement("float8_per_row", ("norm_out",)),
            [("text_encoder in int8_weight_only", "text_encoder unquantized")],
        ),
        (
            Placement("float8_per_row"),
            ENCODERS,
            [
                ("text_encoder unquantized", "text_encoder in int8_weight_only"),
                (
                    "transformer in float8_per_row in all layers",
                    "transformer in float8_per_row without layers norm_out",
                ),
            ],
        ),
        (
            Placement("float8_per_row", (), (), (PrecisionRule("ff", "int8_per_row"),)),
            Placement("float8_per_row", (), (), (PrecisionRule("ff", "int8_weight_only"),)),
            [("layers ff in int8_per_row", "layers ff in int8_weight_only")],
        ),
        (
            Placement("float8_per_row"),
            Placement("float8_per_row", (), (), (PrecisionRule("ff", "int8_weight_only"),)),
            [("layers ff in the type of the rest", "layers ff in int8_weight_only")],
        ),
    ],
)
def test_what_is_quantized_otherwise_is_said_part_by_part(
    wanted: Placement, held: Placement, found: list[tuple[str, str]]
) -> None:
    assert between(wanted, held) == found


@pytest.mark.parametrize(
    ("needed", "found"),
    [
        (replace(PLAIN, model="other"), Difference("model 'other'", "model 'flux'")),
        (replace(PLAIN, world_size=2), Difference("world size 2", "world size 4")),
        (
            replace(PLAIN, attention_backend="sage"),
            Difference("attention backend sage", "attention backends native"),
        ),
        (replace(PLAIN, tp_size=2), Difference("tp_size 2", "tp_size 1", held=True)),
        (
            replace(PLAIN, shared_encoders=("text_encoder",)),
            Difference("text_encoder shared by the ranks", "no shared text encoder", held=True),
        ),
    ],
)
def test_only_what_is_settled_at_loading_can_change(needed: Requirement, found: Difference) -> None:
    assert differences(needed, OFFER) == [found]
    assert could_reload(needed, OFFER) == found.held
    assert not could_reload(needed, replace(OFFER, allow_reload=False))


@pytest.mark.parametrize(
    ("placement", "device", "words"),
    [
        (Placement("float8_per_row"), "cpu", ["float8_per_row", "sm89", "not cpu"]),
        (Placement("float8_per_row"), "sm80", ["float8_per_row", "sm89", "not sm80"]),
        (Placement("float8_per_row"), "sm89", []),
        (Placement("nvfp4"), "sm90", ["sm100"]),
        (Placement("nvfp4"), "sm100", []),
        (Placement("int8_weight_only"), "cpu", []),
        (ENCODERS, "cpu", ["float8_per_row"]),
        (
            Placement("int8_per_row", (), (), (PrecisionRule("ff", "nvfp4"),)),
            "sm90",
            ["nvfp4 needs a CUDA device of at least sm100, not sm90"],
        ),
        (Placement("nvfp4"), "", []),
    ],
)
def test_what_a_device_lacks_is_named(placement: Placement, device: str, words: list[str]) -> None:
    found = lacks(placement, device)
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)
    needed = replace(PLAIN, placement=placement)
    assert could_reload(needed, replace(OFFER, device=device)) == (not words)


def test_types_that_are_made_of_bfloat16_need_it() -> None:
    needed = replace(PLAIN, placement=ENCODERS)
    assert could_reload(needed, OFFER)
    for dtype in ("float16", "float32"):
        other = replace(OFFER, dtype=dtype)
        words = f"float8_per_row is made of bfloat16 weights, not {dtype}"
        assert hindrances(needed, other) == [words]
        assert not could_reload(needed, other)
    assert could_reload(needed, replace(OFFER, dtype=""))


def test_a_tp_size_that_does_not_divide_the_ranks_cannot_be_loaded() -> None:
    needed = replace(PLAIN, tp_size=3)
    assert hindrances(needed, OFFER) == ["tp_size 3 does not divide its 4 ranks"]
    assert not could_reload(needed, OFFER)


def test_long_lists_are_cut() -> None:
    assert listed([str(i) for i in range(8)], most=3) == "0, 1, 2 and 5 more"
    assert listed(["a", "b"], most=2) == "a, b"
