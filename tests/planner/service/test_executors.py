"""Executors that say what cannot be of themselves."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import executor_pb2

from planner.service.server import Planner, Settings
from tests.planner.service.peers import (
    Client,
    executor_message,
    refused,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"model": ""},
        {"world_size": 0},
        {"world_size": 2**32 - 1},
        {"component_configs": []},
        {"component_configs": [executor_pb2.ComponentConfig(path="x", json="{")]},
        {"component_configs": [executor_pb2.ComponentConfig(path="x", json="[" * 10**5)]},
        {"component_configs": [executor_pb2.ComponentConfig(path="x", json="[]")]},
        {"component_configs": [executor_pb2.ComponentConfig(path="x\0", json="{}")]},
        {"component_configs": [executor_pb2.ComponentConfig(path="x" * 513, json="{}")]},
        {
            "component_configs": [
                executor_pb2.ComponentConfig(path=path, json='"' + "x" * 600_000 + '"')
                for path in ("a", "b")
            ]
        },
        {"device": "x" * 513},
        {"device_name": "a\x1b[2Jb"},
        {"versions": ["x" * 513]},
        {"versions": ["torch 2"] * 65},
        {"compute_capability": "cpu"},
        {"compute_capability": "sm9"},
        {"compute_capability": "90"},
        {"compute_capability": "sm90\n"},
        {"compute_capability": "sm" + "9" * 10**5},
        {"attention_backends": [f"b{i}" for i in range(65)]},
        {"attention_backends": ["native", ""]},
        {"attention_backends": ["x" * 513]},
        {"offloaded": ["vae"] * 65},
        {"offloaded": ["a\nb"]},
        {"extra_parallel_modules": ["text_encoder"] * 65},
        {"placement": {"quant_type": "x" * 513}},
        {"placement": {"exclude_layers": ["x"] * 1025}},
        {"placement": {"exclude_layers": [""]}},
        {"placement": {"components": [{"name": "x", "quant_type": "y"}] * 65}},
        {"placement": {"components": [{"name": "", "quant_type": "y"}]}},
        {"placement": {"components": [{"name": "x", "quant_type": ""}]}},
        {
            "placement": {
                "components": [{"name": "x", "quant_type": "y", "exclude_layers": ["z"] * 1025}]
            }
        },
        {"placement": {"precision": [{"part": "x", "quant_type": "y"}] * 1025}},
        {"placement": {"precision": [{"part": "x"}]}},
    ],
)
async def test_executors_that_make_no_sense_are_refused(
    settings: Settings, changes: dict[str, Any]
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = dispatch_pb2.AcquireLeaseRequest(executor=executor_message(**changes))
        refusal = await refused(client.dispatch.AcquireLease(request))
    assert refusal.code == INVALID
    [field] = changes
    assert refusal.violations
    assert all(name.startswith(f"executor.{field}") for name in refusal.violations)


@pytest.mark.parametrize(
    "transformer",
    [
        '{"num_layers": 1e400}',
        '{"num_layers": NaN}',
        '{"num_layers": -1}',
        '{"num_layers": 99999999999}',
        '{"num_layers": "many"}',
        '{"num_layers": null}',
        '{"num_attention_heads": 0}',
    ],
)
async def test_configs_that_no_checkpoint_has_are_refused(
    settings: Settings, transformer: str
) -> None:
    configs = [
        executor_pb2.ComponentConfig(
            path="model_index.json", json='{"_class_name": "FluxPipeline"}'
        ),
        executor_pb2.ComponentConfig(path="transformer/config.json", json=transformer),
    ]
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = dispatch_pb2.AcquireLeaseRequest(
            executor=executor_message(component_configs=configs)
        )
        refusal = await refused(client.dispatch.AcquireLease(request))
    assert refusal.code == INVALID
    assert "executor.component_configs" in refusal.violations
