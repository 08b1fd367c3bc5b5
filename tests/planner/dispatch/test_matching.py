"""What an executor must hold, and the keys that say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.compiler import compile_config
from planner.compile.plan import ComponentQuantization, Placement, PrecisionRule
from planner.compile.request import Request
from planner.dispatch.differences import differences
from planner.dispatch.matching import Offer, Requirement
from planner.models.facts import BlockList
from planner.models.resolve import from_name

FACTS = from_name("black-forest-labs/FLUX.1-dev")
NEED = Requirement("flux", FACTS.architecture, 1, Placement("float8", ("proj_out", "norm_out")))
[TRANSFORMER] = FACTS.architecture.targets
OTHER = replace(
    FACTS.architecture,
    targets=(replace(TRANSFORMER, block_lists=(BlockList("transformer_blocks", 2),)),),
)
ENCODER = ComponentQuantization("text_encoder", "int8_weight_only", ("b", "a"))
BOTH = Placement(components=(ENCODER, ComponentQuantization("transformer", "float8")))


def same(placement: Placement, other: Placement) -> bool:
    """Whether they are one placement, by all that tells them apart."""
    one, two = (replace(NEED, placement=each) for each in (placement, other))
    equal = one.key == two.key
    assert (one == two) == equal
    assert (differences(one, Offer("e", FACTS, two)) == []) == equal
    assert (one.key in Offer("e", FACTS, two).keys) == equal
    return equal


@pytest.mark.parametrize(
    ("placement", "other"),
    [
        (NEED.placement, Placement("float8", ("norm_out", "proj_out", "norm_out"))),
        (Placement(), Placement("", ("proj_out",))),
        (Placement(), Placement(precision=(PrecisionRule("ff", "float8"),))),
        (
            Placement("float8", ("a",)),
            Placement(components=(ComponentQuantization("transformer", "float8", ("a",)),)),
        ),
        (BOTH, Placement(components=tuple(reversed(BOTH.components)))),
        (
            BOTH,
            replace(
                BOTH,
                components=(replace(ENCODER, exclude_layers=("a", "b")), BOTH.components[1]),
            ),
        ),
        (
            Placement(
                "float8", (), (), (PrecisionRule("ff", "int8"), PrecisionRule("attn", "int8"))
            ),
            Placement(
                "float8", (), (), (PrecisionRule("attn", "int8"), PrecisionRule("ff", "int8"))
            ),
        ),
    ],
)
def test_a_placement_is_one_however_it_is_written(placement: Placement, other: Placement) -> None:
    assert same(placement, other)


@pytest.mark.parametrize(
    "other",
    [
        Placement(),
        Placement("int8"),
        Placement("float8", ("a",)),
        Placement("float8", (), (), (PrecisionRule("ff", "int8"),)),
        Placement(components=(ENCODER,)),
        BOTH,
    ],
)
def test_placements_that_hold_other_weights_are_not_the_same(other: Placement) -> None:
    assert not same(Placement("float8"), other)
    assert not same(other, replace(BOTH, precision=(PrecisionRule("ff", "int8"),)))


@pytest.mark.parametrize(
    "changed",
    [
        replace(NEED, model="other"),
        replace(NEED, architecture=OTHER),
        replace(NEED, world_size=2),
        replace(NEED, tp_size=2),
        replace(NEED, shared_encoders=("text_encoder",)),
        replace(NEED, placement=Placement()),
    ],
)
def test_every_difference_changes_the_key(changed: Requirement) -> None:
    offer = Offer("e", FACTS, changed)
    assert changed.key != NEED.key
    assert NEED.key not in offer.keys
    assert differences(NEED, offer)


def test_an_executor_serves_every_attention_backend_that_it_lists_and_no_other() -> None:
    any_backend = replace(NEED, attention_backend="")
    native, flash = (replace(NEED, attention_backend=name) for name in ("native", "flash"))
    silent = Offer("e", FACTS, NEED)
    listing = Offer("e", FACTS, NEED, attention_backends=("flash", "native", "sage"))
    bare = Offer("e", FACTS, NEED, attention_backends=("flash",))
    assert [r.key in silent.keys for r in (any_backend, native, flash)] == [True, True, False]
    assert [r.key in listing.keys for r in (any_backend, native, flash)] == [True, True, True]
    assert [r.key in bare.keys for r in (any_backend, native, flash)] == [True, False, True]
    for needed in (any_backend, native, flash):
        for offer in (silent, listing, bare):
            assert (needed.key in offer.keys) == (not differences(needed, offer))


def test_a_mesh_of_one_tp_size_may_change_from_run_to_run() -> None:
    program = compile_config("parallelism_config: {ulysses_size: 4}", FACTS, Request()).program
    assert program is not None
    needed = Requirement.of("flux", program)
    rings = replace(program.topology, ring_size=4, ulysses_size=1, extra_parallel_modules=("vae",))
    assert Requirement.of("flux", replace(program, topology=rings)).key == needed.key
    split = replace(program.topology, tp_size=2, ulysses_size=2)
    assert Requirement.of("flux", replace(program, topology=split)).key != needed.key


def test_a_requirement_survives_its_message() -> None:
    need = replace(
        NEED, tp_size=2, shared_encoders=("text_encoder",), placement=BOTH, attention_backend="sage"
    )
    again = Requirement.from_proto("flux", need.to_proto())
    assert (again, again.key) == (need, need.key)


def test_a_reload_changes_the_placement_and_nothing_else() -> None:
    offer = Offer("e", FACTS, NEED, "bfloat16", "sm90", ("sage",), allow_reload=True)
    needed = replace(NEED, placement=BOTH, attention_backend="sage")
    after = offer.reloaded(needed)
    assert needed.key in after.keys
    assert NEED.key not in after.keys
    assert replace(after, offered=offer.offered) == offer
