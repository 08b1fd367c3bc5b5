"""What the executor quantizes is what the planner says: layers, bytes, devices."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import nn

from executor.codec_placement import quantization_from_proto, requirements_from_proto
from executor.parallel.tensor import split_tensors
from executor.parallel.wire import Group, Ledger
from executor.placement import quantization as held
from executor.placement.quantize import quantize, stored_bytes
from planner.codec import placement_to_proto, program_to_proto
from planner.compile import device
from planner.compile.estimates.weights import quantized_layers
from planner.compile.plan import Placement
from planner.config.schema import QuantType
from planner.dispatch.matching import Requirement
from tests.executor.engine.tiny_transformers import FAMILIES, TinyTransformer

CPU = torch.device("cpu")
# What torchao computes on a CPU.
RUNNING = ("int8_weight_only", "int8_per_row", "int8_per_tensor", "float8_weight_only")


def test_both_sides_know_the_same_types() -> None:
    assert set(get_args(QuantType)) == held.TYPES
    assert held.LEAST_CAPABILITY == device.LEAST_FOR_TYPE
    assert held.NEEDS_BFLOAT16 == device.NEEDS_BFLOAT16


def _weights(model: nn.Module) -> int:
    return sum(stored_bytes(parameter) for parameter in model.parameters())


def _hold(model: nn.Module, config: dict[str, Any], tiny: TinyTransformer, ranks: int) -> int:
    """Bytes that the plan of a config says; has the model hold it, as rank 0, layer by layer."""
    if ranks > 1:
        config |= {"parallelism_config": {"tp_size": ranks}}
        split_tensors(model, Group("apart", range(ranks), 0, None, Ledger()))
    compilation = tiny.compile(json.dumps(config), 2, world_size=ranks)
    assert compilation.program is not None, compilation.diagnostics
    wanted = quantization_from_proto(placement_to_proto(compilation.program.placement))
    layers = quantize(SimpleNamespace(components={"transformer": model}), wanted, CPU)
    [target], [shape] = tiny.facts.architecture.targets, tiny.facts.shapes
    planned = quantized_layers(target, shape, compilation.program.placement, tp_size=ranks)
    assert {(x.name, x.count, x.quant_type, x.reason) for x in layers} == {
        (x.name, x.count, x.quant_type, x.reason) for x in planned
    }
    assert compilation.estimate is not None
    assert compilation.estimate.cost is not None
    return compilation.estimate.cost.parameter_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_take_the_bytes_that_were_estimated(family: str, dtype: torch.dtype) -> None:
    tiny = TinyTransformer(family, dtype=dtype)
    for ranks in (1, 2):
        for kind in RUNNING:
            model = tiny.build()
            whole = _weights(model)
            config = {"quantize_config": {"quant_type": kind, "exclude_layers": ["norm"]}}
            assert _hold(model, config, tiny, ranks) == _weights(model) < whole


def test_layers_of_their_own_type_take_the_bytes_that_were_estimated() -> None:
    tiny, model = TinyTransformer("flux"), TinyTransformer("flux").build()
    config = {
        "quantize_config": {
            "quant_type": "int8_per_row",
            "exclude_layers": ["transformer_blocks.1."],
            "precision_plan": {"attn": "float8_weight_only", "attn.to_q": "int8_per_tensor"},
        }
    }
    assert _hold(model, config, tiny, 1) == _weights(model)
    kinds = {name: type(p).__name__ for name, p in model.named_parameters() if "weight" in name}
    assert kinds["transformer_blocks.0.attn.to_k.weight"] == "Float8Tensor"
    assert kinds["transformer_blocks.0.attn.to_q.weight"] == "Int8Tensor"
    assert kinds["transformer_blocks.0.ff.net.2.weight"] == "Int8Tensor"
    assert kinds["transformer_blocks.1.ff.net.2.weight"] == "Parameter"
    assert kinds["x_embedder.weight"] == "Parameter"


@pytest.mark.parametrize("kind", ["float8_per_row", "float8_per_tensor"])
def test_float8_takes_the_bytes_that_were_estimated(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU torchao refuses to compute with it, not to make it."""
    import torchao.quantization.quant_api as api

    monkeypatch.setattr(api, "_check_hardware_support", lambda granularities: None)
    tiny = TinyTransformer("flux", dtype=torch.bfloat16)
    model = tiny.build()
    config = {"quantize_config": {"quant_type": kind, "exclude_layers": []}}
    assert _hold(model, config, tiny, 1) == _weights(model)


@pytest.mark.parametrize("kind", sorted(held.TYPES))
def test_both_sides_decide_alike_what_a_layer_becomes(kind: str) -> None:
    for family in FAMILIES:
        tiny = TinyTransformer(family)
        model = tiny.build()
        for excluded in ((), ("embed", "norm"), ("0.attn",)):
            wanted = held.Quantization(kind, excluded)
            decided = [(each, 0) for _, each in held.decisions(wanted, "transformer", model)]
            layers = held.grouped("transformer", decided)
            [target], [shape] = tiny.facts.architecture.targets, tiny.facts.shapes
            planned = list(quantized_layers(target, shape, Placement(kind, excluded), tp_size=1))
            assert {(x.name, x.count, x.quant_type, x.reason) for x in layers} == {
                (x.name, x.count, x.quant_type, x.reason) for x in planned
            }
            assert sum(x.count for x in planned) == len(decided) > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"quant_type": "int8_per_row", "exclude_layers": ["b", "a"]},
            {
                "quant_type": "int8_weight_only",
                "exclude_layers": ["a", "b", "a"],
                "components_to_quantize": {"transformer": {"quant_type": "int8_per_row"}},
            },
        ),
        (
            {"components_to_quantize": ["vae", "transformer"], "quant_type": "int8_per_row"},
            {
                "quant_type": "int8_weight_only",
                "components_to_quantize": {
                    name: {"quant_type": "int8_per_row"} for name in ("transformer", "vae")
                },
            },
        ),
    ],
)
def test_what_one_executor_matches_for_the_planner_is_one_placement_to_the_executor(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    tiny, keys, placements = TinyTransformer("flux"), set(), set()
    for config in (one, other):
        program = tiny.compile(json.dumps({"quantize_config": config}), 2).program
        assert program is not None
        keys.add(Requirement.of("tiny", program).key)
        placements.add(requirements_from_proto(program_to_proto(program)).placement)
    assert len(keys) == len(placements) == 1
