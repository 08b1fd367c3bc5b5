"""What a plan should cost is what running it costs: counted operations, stored and held bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from executor.codec import program_from_proto
from executor.engine.execution import Execution
from planner.codec import estimate_from_proto, plan_to_proto, program_to_proto
from planner.compile.compiler import compile_config
from planner.compile.cost import Cost
from planner.compile.estimates.estimate import estimate_cost
from planner.compile.plan import Branch, Estimate, Program
from planner.compile.request import Request
from planner.compile.rule import column_bounds
from planner.models.facts import ModelFacts
from planner.models.layers import TokenCounts
from planner.models.lengths import SequenceRule
from planner.models.resolve import from_name
from tests.planner.models.tiny import TEXT, TINY, Tiny

STEPS = 12
STATIC = "max_warmup_steps: 3, steps_computation_policy: static, steps_computation_mask: "
MASK = "[1,1,1,0,0,1,0,1,0,0,0,1]"
COMPUTED = MASK.count("1")


def facts_of(tiny: Tiny) -> ModelFacts:
    """A tiny model's facts for its 8 x 8 tokens, one a pixel."""
    facts = tiny.facts
    return replace(
        facts,
        defaults=replace(facts.defaults, height=8, width=8, size_multiple=1),
        sequence=SequenceRule(patch=1, prompt=TEXT),
    )


@dataclass(frozen=True)
class Given(SequenceRule):
    """The tokens of a tiny model's inputs, at whatever size."""

    tokens: TokenCounts = field(kw_only=True)

    def counts(self, height: int, width: int, num_frames: int | None = None) -> TokenCounts:
        return self.tokens


FLUX = facts_of(TINY["flux"])


def compiled(config: str, model: ModelFacts = FLUX, **request: Any) -> tuple[Program, Request]:
    compilation = compile_config(config, model, Request(STEPS, **request))
    assert compilation.program is not None, compilation.diagnostics
    return compilation.program, compilation.request


def cost_of(config: str, model: ModelFacts = FLUX, **request: Any) -> Cost:
    program, full_request = compiled(config, model, **request)
    cost = estimate_cost(program, model, full_request, column_bounds(program))
    assert cost is not None
    return cost


def cache(**keys: Any) -> str:
    given = "".join(f", {k}: {v}" for k, v in ({"Fn_compute_blocks": 1} | keys).items())
    return f"cache_config: {{{STATIC}{MASK}{given}}}"


class TestOperations:
    @pytest.mark.parametrize(
        "config",
        [
            "",
            cache(Fn_compute_blocks=1),
            cache(Fn_compute_blocks=2, Bn_compute_blocks=1),
            # More first blocks than the first list has.
            cache(Fn_compute_blocks=3),
        ],
    )
    def test_a_run_computes_what_was_estimated(self, config: str) -> None:
        cost = cost_of(config)
        assert cost.min_flops == cost.max_flops
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            for _ in run(config):
                pass
        assert counter.get_total_flops() == cost.max_flops

    @pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
    def test_so_does_every_family_under_guidance(self, tiny: Tiny) -> None:
        facts = replace(tiny.facts, sequence=Given(patch=1, prompt=TEXT, tokens=tiny.tokens))
        config = (
            "cache_config: {Fn_compute_blocks: 1, max_warmup_steps: 1, "
            "steps_computation_policy: static, steps_computation_mask: [1, 0, 1]}"
        )
        request = Request(3, guidance_scale=5.0, negative_prompt=True)
        compilation = compile_config(config, facts, request)
        program, estimate = compilation.program, compilation.estimate
        assert program is not None, compilation.diagnostics
        assert estimate is not None
        assert estimate.cost is not None
        branches = {column.branch for column in program.columns}
        model = tiny.build()
        execution = Execution({"transformer": model}, program_from_proto(program_to_proto(program)))
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), execution.attached(), sdpa_kernel(SDPBackend.MATH), counter:
            for _ in range(3):
                for _ in branches:
                    tiny.forward(model)
                execution.end_step()
        # The tiny forwards have one row; where guidance doubles the batch, it doubles the work.
        rows = facts.guidance.batch(5.0)
        assert counter.get_total_flops() * rows == estimate.cost.max_flops
        assert estimate.cost.max_flops < estimate.cost.full_flops

    def test_an_undecided_run_lies_between_the_bounds(self) -> None:
        config = "cache_config: {max_warmup_steps: 2, Fn_compute_blocks: 1}"
        open_, decided = cost_of(config), cost_of("")
        assert open_.min_flops < open_.max_flops == open_.full_flops == decided.full_flops
        (column,) = open_.columns
        saved = (STEPS - 2) * (column.full_flops - column.cached_flops)
        assert open_.full_flops - open_.min_flops == saved
        assert (open_.min_speedup, decided.max_speedup) == (1.0, 1.0)
        assert open_.max_speedup == open_.full_flops / open_.min_flops > 1

    def test_the_rest_of_a_transformer_is_computed_in_every_step(self) -> None:
        cost = cost_of(cache(Fn_compute_blocks=1))
        (column,) = cost.columns
        rest = cost.step_flops - column.full_flops
        assert rest == FLUX.shapes[0].rest.flops(TINY["flux"].tokens) > 0
        computed = MASK.count("1")
        assert cost.min_flops == (
            STEPS * rest + computed * column.full_flops + (STEPS - computed) * column.cached_flops
        )

    def test_a_second_branch_costs_as_much_again(self) -> None:
        program, request = compiled("")
        (column,) = program.columns
        both = replace(
            program,
            columns=(column, replace(column, branch=Branch.UNCOND)),
            steps=tuple(step * 2 for step in program.steps),
        )
        once, twice = (estimate_cost(p, FLUX, request, column_bounds(p)) for p in (program, both))
        assert once is not None
        assert twice is not None
        assert (twice.full_flops, twice.step_flops) == (2 * once.full_flops, 2 * once.step_flops)
        assert twice.parameter_bytes == once.parameter_bytes

    def test_a_doubled_batch_costs_twice(self) -> None:
        model = from_name("Tongyi-MAI/Z-Image-Turbo")
        on, off = (cost_of("cache_config: {}", model, guidance_scale=g) for g in (5.0, 0.0))
        assert on.full_flops == 2 * off.full_flops
        assert on.activation_bytes == 2 * off.activation_bytes

    def test_targets_share_the_steps(self) -> None:
        pair = from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
        cost = cost_of("", pair, guidance_scale=1.0)
        # Both are alike, and one of them runs.
        assert cost.full_flops == STEPS * cost.step_flops
        assert cost.parameter_bytes == 2 * 2 * 14_288_491_584


def run(config: str) -> Iterator[Execution]:
    """The engine after every step of a run of the tiny FLUX, in single precision."""
    tiny = TINY["flux"]
    torch.manual_seed(0)
    model = tiny.build()
    program, _ = compiled(config)
    execution = Execution({"transformer": model}, program_from_proto(program_to_proto(program)))
    with torch.no_grad(), execution.attached():
        for _ in range(STEPS):
            tiny.forward(model)
            execution.end_step()
            yield execution


def held_bytes(execution: Execution) -> int:
    """The most that the run's cache has held so far."""
    return sum(execution.cache_bytes)


def cache_bytes(config: str) -> int:
    return cost_of(config, dtype="float32").cache_bytes


TAYLOR = {"enable_taylorseer": "true", "taylorseer_order": 2}


class TestCache:
    @pytest.mark.parametrize(
        "keys",
        [
            {},
            TAYLOR,
            TAYLOR | {"enable_encoder_taylorseer": "true"},
            TAYLOR | {"taylorseer_cache_type": "hidden_states"},
            TAYLOR | {"taylorseer_order": 4, "force_refresh_step_hint": 6},
            {"enable_foca": "true"},
            {"enable_foca": "true", "enable_encoder_foca": "true"},
            {"enable_dmd": "true", "dmd_history": 4, "enable_encoder_dmd": "false"},
            {"enable_dmd": "true", "dmd_history": 6, "dmd_rank": 2},
            {"enable_dmd": "true", "dmd_history": 5, "dmd_rank": 9},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("mask", [MASK, "[1,1,1,0,1,0,1,0,1,0,1,0]"])
    def test_a_decided_cache_holds_what_was_estimated(
        self, keys: dict[str, Any], mask: str
    ) -> None:
        config = cache(**keys).replace(MASK, mask)
        assert max(map(held_bytes, run(config))) == cache_bytes(config) > 0

    @pytest.mark.parametrize("threshold", [0.0001, 0.3, 0.9999])
    @pytest.mark.parametrize("forecast", ["", ", enable_taylorseer: true", ", enable_foca: true"])
    def test_an_undecided_one_holds_no_more(self, threshold: float, forecast: str) -> None:
        config = (
            "cache_config: {max_warmup_steps: 3, Fn_compute_blocks: 1, "
            f"residual_diff_threshold: {threshold}{forecast}}}"
        )
        held = max(map(held_bytes, run(config)))
        assert 0 < held <= cache_bytes(config)
        if not forecast:
            # The streams, what the first block added to the hidden one, and its mean.
            assert held == cache_bytes(config) == 4 * (64 * (64 + TEXT) + 64 * 64 + 1)

    def test_nothing_is_held_for_nothing(self) -> None:
        assert (
            cache_bytes("")
            == cache_bytes("cache_config: {Fn_compute_blocks: 1, residual_diff_threshold: 0.0}")
            == 0
        )

    def test_ranks_share_the_sequence(self) -> None:
        config = cache(Fn_compute_blocks=1)
        for size, share in ((1, 64 + TEXT), (2, 32 + 6), (4, 16 + 3)):
            topology = "" if size == 1 else f"\nparallelism_config: {{ulysses_size: {size}}}"
            assert cost_of(config + topology, world_size=size).cache_bytes == 2 * 64 * share


def test_weights_are_split_as_diffusers_plans_it() -> None:
    for name in ("flux", "flux2", "qwen"):
        tiny = TINY[name]
        model, facts = tiny.build(), facts_of(tiny)
        whole = sum(p.numel() for p in model.parameters())
        split = sum(
            p.numel()
            for path, p in model.named_parameters()
            if _is_split(path, type(model)._tp_plan)
        )
        for size in (1, 2, 4):
            config = "" if size == 1 else f"parallelism_config: {{tp_size: {size}}}"
            cost = cost_of(config, facts, world_size=size)
            assert cost.parameter_bytes == 2 * (whole - split + split // size), (name, size)


def _is_split(path: str, plan: dict[str, Any]) -> bool:
    module, _, kind = path.rpartition(".")
    for pattern, style in plan.items():
        if fnmatch(module, pattern):
            rows = "row" in str(style if isinstance(style, str) else type(style).__name__).lower()
            return kind == "weight" or not rows
    return False


class TestQuantization:
    def bytes(self, config: str) -> int:
        return cost_of(f"quantize_config: {config}").parameter_bytes

    def test_matrices_of_blocks_take_a_byte_a_weight_and_scales(self) -> None:
        model = TINY["flux"].build()
        blocks = [
            module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and "transformer_blocks" in name
        ]
        whole = 2 * sum(p.numel() for p in model.parameters())
        weights = sum(linear.weight.numel() for linear in blocks)
        rows = sum(linear.out_features for linear in blocks)
        everything = "exclude_layers: []"
        # A scale and a zero point for each row.
        per_row = whole - weights + 5 * rows
        assert self.bytes(f"{{quant_type: int8_per_row, {everything}}}") == per_row
        assert self.bytes(f"{{quant_type: float8_per_tensor, {everything}}}") == (
            whole - weights + 4 * len(blocks)
        )

    def test_excluded_layers_keep_their_bytes(self) -> None:
        whole = cost_of("").parameter_bytes
        assert self.bytes("{exclude_layers: [transformer_blocks]}") == whole
        # One of two blocks, then both.
        one = self.bytes("{exclude_layers: [norm, attn, single, 'transformer_blocks.0.']}")
        both = self.bytes("{exclude_layers: [norm, attn, single]}")
        assert whole - both == 2 * (whole - one) > 0


class TestExchanges:
    """Tiny FLUX: 2 double and 3 single blocks, 64 + 12 tokens of 64 channels in 4 heads."""

    def test_ulysses(self) -> None:
        cost = cost_of("parallelism_config: {ulysses_size: 2}", world_size=2)
        # Queries, keys, values and results of half the sequence, of which half goes elsewhere.
        assert step_bytes(cost) == {
            ("all_to_all", "ulysses"): 5 * 4 * 38 * 64 * 2 // 2,
            ("all_gather", "sequence"): 32 * 64 * 2,
        }
        assert calls(cost) == {
            ("all_to_all", "ulysses"): STEPS * 5 * 2,
            ("all_gather", "sequence"): STEPS,
        }

    def test_ulysses_in_rounds(self) -> None:
        config = "parallelism_config: {ulysses_size: 2, ulysses_async: true}"
        cost = cost_of(config, world_size=2)
        assert step_bytes(cost)["all_to_all", "ulysses"] == 5 * 4 * 38 * 64 * 2 // 2
        assert calls(cost)["all_to_all", "ulysses"] == STEPS * 5 * 4

    def test_ulysses_in_8_bits(self) -> None:
        config = "parallelism_config: {ulysses_size: 2, ulysses_float8: true}"
        cost = cost_of(config, world_size=2)
        assert step_bytes(cost)["all_to_all", "ulysses"] == 5 * 4 * 38 * (64 + 4 * 4) // 2

    def test_uneven_shares_are_those_of_rank_0(self) -> None:
        config = "parallelism_config: {ulysses_size: 3, ulysses_anything: true}"
        cost = cost_of(config, world_size=3)
        # 22 + 4 tokens of 4 heads against the 76 of 2 heads, of 16 channels.
        rows = 3 * 26 * (4 - 2) + (76 - 26) * 2
        assert step_bytes(cost)["all_to_all", "ulysses"] == 5 * rows * 16 * 2

    @pytest.mark.parametrize(("method", "key"), [("p2p", "send_recv"), ("allgather", "all_gather")])
    def test_ring(self, method: str, key: str) -> None:
        config = f"parallelism_config: {{ring_size: 4, ring_rotate_method: {method}}}"
        cost = cost_of(config, world_size=4)
        assert step_bytes(cost) == {
            (key, "ring"): 5 * 3 * 2 * 19 * 64 * 2,
            ("all_gather", "sequence"): 3 * 16 * 64 * 2,
        }
        assert calls(cost)[key, "ring"] == STEPS * 5 * (3 if method == "p2p" else 1)

    def test_tensor_parallel(self) -> None:
        cost = cost_of("parallelism_config: {tp_size: 2}", world_size=2)
        # Of a double block attention and feed-forward of both streams, of a single one the end.
        assert step_bytes(cost) == {
            ("all_reduce", "tp"): (2 * 2 * 76 + 3 * 76) * 64 * 2,
        }
        assert calls(cost) == {("all_reduce", "tp"): STEPS * (2 * 4 + 3)}

    def test_norms_across_heads_sum_squares(self) -> None:
        model = from_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
        config = "parallelism_config: {tp_size: 2}"
        cost = cost_of(config, model, world_size=2, guidance_scale=1.0)
        # Two attentions and a feed-forward; 32,760 tokens of 1,536 channels of 2 bytes.
        results = 3 * 32760 * 1536 * 2
        # Queries and keys of both attentions, the last of the prompt: 4 bytes a token.
        squares = (3 * 32760 + 512) * 4
        assert step_bytes(cost) == {("all_reduce", "tp"): 30 * (results + squares)}
        assert calls(cost) == {("all_reduce", "tp"): STEPS * 30 * (3 + 4)}

    def test_all_three(self) -> None:
        config = "parallelism_config: {ulysses_size: 2, ring_size: 2, tp_size: 2}"
        cost = cost_of(config, world_size=8)
        assert step_bytes(cost) == {
            ("all_to_all", "ulysses"): 5 * 4 * 19 * 32 * 2 // 2,
            # After the all-to-all a rank has half the sequence and half of its heads.
            ("send_recv", "ring"): 5 * 2 * 38 * 16 * 2,
            ("all_reduce", "tp"): (2 * 2 * 19 + 3 * 19) * 64 * 2,
            ("all_gather", "sequence"): 3 * 16 * 64 * 2,
        }

    def test_text_that_is_only_attended_to_stays_where_it_is(self) -> None:
        model = from_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
        cost = cost_of(
            "parallelism_config: {ulysses_size: 2}", model, world_size=2, guidance_scale=1.0
        )
        sent = step_bytes(cost)["all_to_all", "ulysses"]
        assert sent == 30 * 4 * (32760 // 2) * 1536 * 2 // 2

    def test_skipped_blocks_exchange_nothing(self) -> None:
        config = cache(Fn_compute_blocks=1, Bn_compute_blocks=1)
        cost = cost_of(config + "\nparallelism_config: {ulysses_size: 2}", world_size=2)
        uncached = cost_of("parallelism_config: {ulysses_size: 2}", world_size=2)
        computed = COMPUTED * 5 + (STEPS - COMPUTED) * 2
        assert calls(cost)["all_to_all", "ulysses"] == 2 * computed
        assert calls(cost)["all_gather", "sequence"] == STEPS
        assert step_bytes(cost) == step_bytes(uncached)

    def test_decisions_are_collective_only_between_ranks(self) -> None:
        config = "cache_config: {max_warmup_steps: 2, Fn_compute_blocks: 1}"
        assert cost_of(config).exchanges == ()
        on_two = cost_of(config + "\nparallelism_config: {ulysses_size: 2}", world_size=2)
        assert calls(on_two)["decision", "branch"] == STEPS - 2
        wan = from_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
        for separate, times in (("true", 2), ("false", 1)):
            both = config.replace("{", f"{{cfg_diff_compute_separate: {separate}, ")
            both += "\nparallelism_config: {ulysses_size: 2}"
            cost = cost_of(both, wan, world_size=2)
            assert calls(cost)["decision", "branch"] == times * (STEPS - 2)
        decided = cost_of(cache() + "\nparallelism_config: {ulysses_size: 2}", world_size=2)
        assert ("decision", "branch") not in calls(decided)


def step_bytes(cost: Cost) -> dict[tuple[str, str], int]:
    return {
        (each.collective, each.group): each.step_bytes for each in cost.exchanges if each.step_bytes
    }


def calls(cost: Cost) -> dict[tuple[str, str], int]:
    """Of a run with the most computed steps."""
    return {(each.collective, each.group): each.max_calls for each in cost.exchanges}


class TestActivations:
    def test_streams_and_the_widest_layer(self) -> None:
        streams = 76 * 64
        # From attention and feed-forward of a single block: 64 + 256 channels in, 64 out.
        assert cost_of("").activation_bytes == 2 * (streams + 76 * (64 + 256 + 64))

    def test_ranks_share_them(self) -> None:
        sizes = {
            key: cost_of(f"parallelism_config: {{{key}: 2}}", world_size=2).activation_bytes
            for key in ("ulysses_size", "ring_size", "tp_size")
        }
        alone = cost_of("").activation_bytes
        assert sizes["ulysses_size"] == sizes["ring_size"] == alone // 2
        # The same layer with half its inputs, the streams whole.
        assert sizes["tp_size"] == 2 * (76 * 64 + 76 * (160 + 64))


def test_a_model_of_unknown_layers_has_no_cost() -> None:
    program, request = compiled("")
    assert estimate_cost(program, replace(FLUX, shapes=()), request, column_bounds(program)) is None
    assert (
        estimate_cost(program, replace(FLUX, sequence=None), request, column_bounds(program))
        is None
    )


def test_the_plan_carries_its_cost_and_no_identity_depends_on_it() -> None:
    program, request = compiled(cache(**TAYLOR))
    cost = estimate_cost(program, FLUX, request, column_bounds(program))
    with_cost = plan_to_proto(program, Estimate(3, 5, cost))
    without = plan_to_proto(program, Estimate(3, 5))
    assert estimate_from_proto(with_cost.estimate) == Estimate(3, 5, cost)
    assert estimate_from_proto(without.estimate) == Estimate(3, 5)
    assert with_cost.plan_id == without.plan_id


def test_no_size_is_too_large_for_a_plan() -> None:
    program, request = compiled("")
    cost = estimate_cost(program, FLUX, request, column_bounds(program))
    assert cost is not None
    huge = replace(cost, full_flops=10**30, parameter_bytes=10**30)
    carried = estimate_from_proto(plan_to_proto(program, Estimate(3, 5, huge)).estimate).cost
    assert carried is not None
    assert carried.full_flops == pytest.approx(10**30)
    assert carried.parameter_bytes == 2**64 - 1


def test_every_published_model_has_a_cost() -> None:
    for name in ("Qwen/Qwen-Image", "hunyuanvideo-community/HunyuanVideo"):
        cost = cost_of("cache_config: {Fn_compute_blocks: 1}", from_name(name))
        assert 1 <= cost.min_speedup <= cost.max_speedup
        assert all(column.cached_flops < column.full_flops for column in cost.columns)
