"""Ranks that share the weights of every block compute what one process computes."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.tensor import NotSplittableError, reconnect, split_tensors
from executor.parallel.tensor_families import FAMILIES
from executor.parallel.tensor_layers import Link, RowLinear, SplitRMSNorm
from executor.parallel.wire import Collective, Count, Group, Ledger
from planner.compile import plan
from planner.compile.estimates.exchange import Rank, added
from planner.compile.estimates.forward import ForwardCost, forward_cost
from planner.models.layers import TokenCounts
from tests.executor.engine.tiny_transformers import FAMILIES as TINY
from tests.executor.engine.tiny_transformers import TinyTransformer, adaptive
from tests.executor.parallel.shared_runs import Case, relative, run_case, run_planned
from tests.executor.parallel.tiny_forwards import BATCH, FORWARDS
from tests.executor.rank_farm import RankFarm

# Of these models; summing in another order is all that differs.
EXACT = 5e-6
SIZES = (2, 4)


def apart(size: int) -> Group:
    """The group of the first of so many ranks, which can split but not sum."""
    return Group("tp", range(size), 0, None, Ledger())


def tp_group(world: World, size: int) -> Group:
    ulysses = world.size // size
    return world.mesh(Topology(world.size, ulysses_size=ulysses, tp_size=size)).tp


def rms(difference: Tensor) -> float:
    return difference.float().square().mean().sqrt().item()


def held_bytes(model: nn.Module) -> int:
    """What the parameters keep alive, which is more than they have where they are views."""
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    return sum(storage.nbytes() for storage in storages.values())


def _split(world: World, family: str) -> dict[int, dict[str, Any]]:
    """What every size of group gives, by size."""
    tiny = FORWARDS[family]
    expected = tiny(tiny.build())
    rounded = tiny.build(torch.bfloat16)
    in_bf16, in_full = tiny(rounded), tiny(rounded.float())
    found = {}
    for size in SIZES:
        group = tp_group(world, size)
        model, narrow = tiny.build(), tiny.build(torch.bfloat16)
        split_tensors(model, group)
        split_tensors(narrow, group)
        before = dict(world.ledger.counts)
        output = tiny(model)
        found[size] = {
            "counted": world.ledger.since(before),
            "relative": relative(output, expected),
            "bf16": rms(tiny(narrow) - in_full) / rms(in_bf16 - in_full),
        }
    return found


@pytest.mark.parametrize("family", FORWARDS)
def test_a_split_transformer_computes_what_the_whole_one_does(
    rank_farm: RankFarm, family: str
) -> None:
    answers = rank_farm.run(max(SIZES), _split, family)
    for size in SIZES:
        expected = planned_sums(family, size)
        for answer in answers:
            assert answer[size]["relative"] < EXACT
            # Each of N partial results is rounded, and N - 1 sums of them: for partial results of
            # independent sign the error of such a layer has N times the variance of one rounding.
            # So has, at most, what follows from all of them.
            assert answer[size]["bf16"] < sqrt(size)
            assert answer[size]["counted"] == {(Collective.ALL_REDUCE, "tp"): expected}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FORWARDS)
def test_a_rank_holds_its_part_and_no_more(family: str, size: int) -> None:
    tiny = FORWARDS[family]
    model = tiny.build()
    names = model.state_dict().keys()
    split_tensors(model, apart(size))
    assert held_bytes(model) == planned(family, size).parameter_bytes
    assert model.state_dict().keys() == names
    for listed, split in FAMILIES[type(model).__name__].blocks.items():
        for block in model.get_submodule(listed).children():
            heads = {block.get_submodule(name).heads for name in split.attentions}
            assert heads == {4 // size}


@pytest.mark.parametrize("family", FORWARDS)
def test_a_rank_quantizes_its_part_row_by_row(family: str) -> None:
    tiny = FORWARDS[family]
    model = tiny.build()
    split_tensors(model, apart(4))
    linears = [
        layer
        for listed in FAMILIES[type(model).__name__].blocks
        for layer in model.get_submodule(listed).modules()
        if isinstance(layer, nn.Linear)
    ]
    weights = sum(layer.weight.numel() for layer in linears)
    rows = sum(layer.out_features for layer in linears)
    # A scale and a zero point for each row.
    expected = held_bytes(model) - 3 * weights + 5 * rows
    assert planned(family, 4, "int8_per_row").parameter_bytes == expected


BOTH = [
    Topology(4, ulysses_size=2, tp_size=2),
    Topology(4, ring_size=2, tp_size=2),
]


@pytest.mark.parametrize("family", TINY)
def test_ranks_share_tokens_and_weights_at_once(rank_farm: RankFarm, family: str) -> None:
    case = Case(TinyTransformer(family))
    planned = [case.under(each) for each in BOTH]
    alone = run_case(case, case.program)
    for runs in rank_farm.run(4, run_planned, planned):
        assert all(relative(run.latents, alone.latents) < EXACT for run in runs)


def test_eight_ranks_share_everything_at_once(rank_farm: RankFarm) -> None:
    """2 x 2 x 2, every family, with decisions that all of them take alike."""
    cases = [Case(TinyTransformer(family), adaptive(0.4), 4) for family in TINY]
    cube = Topology(8, ring_size=2, ulysses_size=2, tp_size=2)
    planned = [case.under(cube) for case in cases]
    alone = [run_case(case, case.program) for case in cases]
    for runs in rank_farm.run(8, run_planned, planned):
        for run, expected in zip(runs, alone, strict=True):
            assert relative(run.latents, expected.latents) < EXACT
            kinds, wanted = (
                [[op and op.kind for op in step] for step in each.outcomes]
                for each in (run, expected)
            )
            assert kinds == wanted


def _gone_wrong(world: World) -> dict[str, float]:
    """How far off splits are that have one thing wrong."""
    group, found = tp_group(world, world.size), {}

    def split(family: str, spoil: Callable[[nn.Module], None]) -> float:
        tiny = FORWARDS[family]
        model = tiny.build()
        split_tensors(model, group)
        spoil(model)
        return relative(tiny(model), tiny(tiny.build()))

    def bias_on_every_rank(model: nn.Module) -> None:
        for layer in model.modules():
            if isinstance(layer, RowLinear):
                layer.bias = nn.Parameter(layer.bias * world.size)

    def norms_of_own_heads(model: nn.Module) -> None:
        for layer in model.modules():
            if isinstance(layer, SplitRMSNorm):
                layer.channels //= world.size
                layer.link = Link(Group("alone", [world.rank], 0, None, world.ledger))

    def rotation_of_the_first_heads(model: nn.Module) -> None:
        model.rope.link = Link(apart(world.size))

    def halves_as_one(model: nn.Module) -> None:
        whole = FORWARDS["flux2"].build()
        for name, layer in model.named_modules():
            if name.endswith("ff.linear_in"):
                parts = whole.get_submodule(name).weight.chunk(world.size)
                layer.weight = nn.Parameter(parts[world.rank].clone())

    found["nothing"] = split("flux", lambda model: None)
    found["bias"] = split("flux", bias_on_every_rank)
    found["norms"] = split("wan", norms_of_own_heads)
    found["rotation"] = split("ltx", rotation_of_the_first_heads)
    found["segments"] = split("flux2", halves_as_one)
    return found


def test_a_wrong_split_is_seen(rank_farm: RankFarm) -> None:
    answers = rank_farm.run(2, _gone_wrong)
    for wrong in answers[0]:
        most = max(answer[wrong] for answer in answers)
        assert most < EXACT if wrong == "nothing" else most > 1000 * EXACT


def _quantized(world: World, family: str) -> dict[str, Any]:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    tiny = FORWARDS[family]
    expected = tiny(tiny.build())
    whole, model = tiny.build(), tiny.build()
    split_tensors(model, tp_group(world, world.size))
    for each in (whole, model):
        quantize_(each, Int8WeightOnlyConfig())
    rows = [layer for layer in model.modules() if isinstance(layer, RowLinear)]
    return {
        "kinds": {type(layer.weight).__name__ for layer in rows},
        "error": rms(tiny(model) - expected) / rms(tiny(whole) - expected),
    }


def test_a_split_transformer_can_be_quantized(rank_farm: RankFarm) -> None:
    for answer in rank_farm.run(2, _quantized, "wan"):
        assert answer["kinds"] == {"Int8Tensor"}
        # Rows are scaled by rank, so no worse but for chance.
        assert 0.5 < answer["error"] < 1.25


def _compiled(world: World) -> dict[str, Any]:
    tiny = FORWARDS["wan"]
    model = tiny.build()
    split_tensors(model, tp_group(world, world.size))
    model.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    tiny(model)
    before = dict(world.ledger.counts)
    output = tiny(model)
    return {
        "relative": relative(output, tiny(tiny.build())),
        "counted": world.ledger.since(before),
    }


def test_compiled_blocks_have_no_breaks_and_count_what_runs(rank_farm: RankFarm) -> None:
    for answer in rank_farm.run(2, _compiled):
        assert answer["relative"] < EXACT
        assert answer["counted"] == {(Collective.ALL_REDUCE, "tp"): planned_sums("wan", 2)}


def _connected_anew(world: World) -> float:
    tiny = FORWARDS["wan"]
    model = tiny.build()
    split_tensors(model, tp_group(world, world.size))
    world.forget()
    reconnect(model, tp_group(world, world.size))
    return relative(tiny(model), tiny(tiny.build()))


def test_a_split_transformer_outlives_its_group(rank_farm: RankFarm) -> None:
    assert max(rank_farm.run(2, _connected_anew)) < EXACT


def test_it_is_connected_only_where_its_part_belongs() -> None:
    model = FORWARDS["flux"].build()
    split_tensors(model, apart(4))
    with pytest.raises(ValueError, match="the weights are part 0 of 4, not 0 of 2"):
        reconnect(model, apart(2))


def test_a_group_of_one_splits_nothing() -> None:
    model = FORWARDS["flux"].build()
    split_tensors(model, apart(1))
    assert not any(isinstance(layer, RowLinear) for layer in model.modules())


@pytest.mark.parametrize(
    ("family", "config", "size", "message"),
    [
        ("flux", {}, 3, r"transformer_blocks\.0\.attn\.to_q: 4 heads do not divide by 3 ranks"),
        ("wan", {"ffn_dim": 98}, 4, r"ffn\.net\.0\.proj: 98 channels do not divide by 4 ranks"),
        # Its fused layer has 3 x 64 channels of heads, then two times 64 x 1.03125.
        ("flux2", {"mlp_ratio": 1.03125}, 4, r"ff\.linear_in: 66 channels do not divide by 4"),
    ],
)
def test_what_does_not_divide_is_refused(
    family: str, config: dict[str, Any], size: int, message: str
) -> None:
    model = FORWARDS[family].build(**config)
    before = [parameter.shape for parameter in model.parameters()]
    with pytest.raises(NotSplittableError, match=message):
        split_tensors(model, apart(size))
    assert [parameter.shape for parameter in model.parameters()] == before


def test_nothing_is_split_twice() -> None:
    model = FORWARDS["flux"].build()
    split_tensors(model, apart(2))
    with pytest.raises(NotSplittableError, match="is split already"):
        split_tensors(model, apart(2))


def test_a_transformer_of_no_known_family_is_refused() -> None:
    with pytest.raises(NotSplittableError, match="Linear: no split is known; known: Flux"):
        split_tensors(nn.Linear(4, 4), apart(2))


def planned_sums(family: str, size: int) -> Count:
    (volume,) = added(*((g.traffic, 1) for g in planned(family, size).groups.values())).values()
    return Count(*volume)


def planned(family: str, size: int, quant_type: str = "") -> ForwardCost:
    """What the planner counts of a forward on so many ranks."""
    tiny = FORWARDS[family]
    tokens = TokenCounts(**{"prompt": 0, **tiny.tokens})
    rank = Rank(tokens, plan.Topology(world_size=size, tp_size=size), BATCH, 4)
    return forward_cost(tiny.facts, rank, plan.Placement(quant_type))
