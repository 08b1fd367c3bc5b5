"""Who can serve what, and how a refusal words it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.compile.compiler import compile_config
from planner.compile.plan import Placement
from planner.compile.request import Request
from planner.dispatch.matching import Offer, Requirement, differences, why_none_matches
from planner.models.facts import BlockList
from planner.models.resolve import from_name

FACTS = from_name("black-forest-labs/FLUX.1-dev")
NEED = Requirement("flux", FACTS.architecture, 1, Placement("float8", ("proj_out", "norm_out")))
[TRANSFORMER] = FACTS.architecture.targets
OTHER = replace(
    FACTS.architecture,
    targets=(replace(TRANSFORMER, block_lists=(BlockList("transformer_blocks", 2),)),),
)


def test_equal_requirements_have_equal_keys_in_any_order_of_layers() -> None:
    same = replace(NEED, placement=Placement("float8", ("norm_out", "proj_out")))
    assert same.key == NEED.key
    assert differences(NEED, same) == []


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        (replace(NEED, model="other"), "serves model 'other'"),
        (replace(NEED, architecture=OTHER), "another architecture"),
        (replace(NEED, world_size=2), "world size is 2, the plan needs 1"),
        (replace(NEED, tp_size=2), "tp_size is 2, the plan needs 1"),
        (
            replace(NEED, shared_encoders=("text_encoder",)),
            "the ranks share text_encoder, the plan needs none",
        ),
        (replace(NEED, placement=Placement()), "quantization is none, the plan needs float8"),
        (replace(NEED, placement=Placement("float8")), "the plan needs norm_out, proj_out"),
    ],
)
def test_every_difference_changes_the_key_and_has_words(offered: Requirement, words: str) -> None:
    assert offered.key != NEED.key
    assert words in ", ".join(differences(NEED, offered))


def test_a_mesh_of_one_tp_size_may_change_from_run_to_run() -> None:
    program = compile_config("parallelism_config: {ulysses_size: 4}", FACTS, Request()).program
    assert program is not None
    needed = Requirement.of("flux", program)
    rings = replace(program.topology, ring_size=4, ulysses_size=1, extra_parallel_modules=("vae",))
    assert Requirement.of("flux", replace(program, topology=rings)).key == needed.key
    split = replace(program.topology, tp_size=2, ulysses_size=2)
    assert Requirement.of("flux", replace(program, topology=split)).key != needed.key


def test_one_match_among_many_is_enough() -> None:
    offers = [Offer("a", FACTS, replace(NEED, world_size=2)), Offer("b", FACTS, NEED)]
    assert why_none_matches(NEED, offers) is None
    why = why_none_matches(NEED, offers[:1])
    assert why == "no connected executor matches (a: world size is 2, the plan needs 1)"
    assert why_none_matches(NEED, []) == "no executor is connected"
