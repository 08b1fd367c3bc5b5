"""Many plans in one call: each request has its own result, and no other call waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from ditplan.v1 import planner_pb2

from planner.service import planner_service
from planner.service.server import Planner, Settings
from tests.planner.service.peers import ADAPTIVE_CONFIG, MODEL, Client, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]


def asked(**values: Any) -> planner_pb2.CompilePlanRequest:
    return planner_pb2.CompilePlanRequest(**({"model": MODEL} | values))


def numbered(number: int) -> planner_pb2.CompilePlanRequest:
    return asked(config=f"# {number}\n")


def batch(*requests: planner_pb2.CompilePlanRequest) -> planner_pb2.CompilePlansRequest:
    return planner_pb2.CompilePlansRequest(requests=requests)


async def test_results_come_in_order_and_are_those_of_single_calls(settings: Settings) -> None:
    requests = [asked(config=ADAPTIVE_CONFIG, num_inference_steps=n) for n in (28, 4, 50)]
    async with Planner(settings) as planner, Client(planner.address) as client:
        together = await client.planner.CompilePlans(batch(*requests))
        alone = [await client.planner.CompilePlan(request) for request in requests]
    assert [result.compiled for result in together.results] == alone


async def test_a_refused_request_does_not_fail_the_others(settings: Settings) -> None:
    wrong = "cache_config:\n  max_warmup_step: 2\n  residual_diff_threshold: high\n"
    async with Planner(settings) as planner, Client(planner.address) as client:
        response = await client.planner.CompilePlans(
            batch(asked(), asked(config=wrong), asked(model="nobody/knows"), asked(model=""))
        )
        alone = await refused(client.planner.CompilePlan(asked(config=wrong)))
    good, config, model, name = response.results
    assert good.compiled.plan.plan_id
    assert [(r.refused.code, r.refused.reason) for r in (config, model, name)] == [
        (INVALID, "INVALID_CONFIG"),
        (INVALID, "UNKNOWN_MODEL"),
        (INVALID, "INVALID_REQUEST"),
    ]
    assert config.refused.message == alone.message
    assert list(config.refused.diagnostics) == alone.diagnostics
    assert [(d.line, d.field) for d in config.refused.diagnostics][:2] == [
        (2, "cache_config.max_warmup_step"),
        (3, "cache_config.residual_diff_threshold"),
    ]
    assert [(d.field, d.code) for d in model.refused.diagnostics] == [("model", "unknown-model")]
    assert name.refused.diagnostics[0].message == "is empty"


async def test_a_bug_in_one_compile_stays_in_its_result(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_config = planner_service.compile_config

    def sometimes(config: str, *rest: Any) -> Any:
        if config:
            raise ZeroDivisionError
        return compile_config(config, *rest)

    monkeypatch.setattr(planner_service, "compile_config", sometimes)
    async with Planner(settings) as planner, Client(planner.address) as client:
        response = await client.planner.CompilePlans(batch(asked(config="a: 1"), asked()))
    bug, good = response.results
    assert (bug.refused.code, bug.refused.reason) == (13, "INTERNAL")
    assert "ZeroDivision" not in bug.refused.message
    assert good.compiled.plan.plan_id


@pytest.mark.parametrize("count", [0, 257])
async def test_batches_out_of_bounds_are_refused(settings: Settings, count: int) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(client.planner.CompilePlans(batch(*[asked()] * count)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"requests": f"{count} requests are not 1 to 256"}


async def test_an_answer_ends_where_clients_would_not_take_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        one = (await client.planner.CompilePlans(batch(asked()))).results[0].ByteSize()
        monkeypatch.setattr(planner_service, "_MAX_ANSWER_BYTES", 2 * one + 10)
        response = await client.planner.CompilePlans(batch(*[asked()] * 4))
    assert [result.WhichOneof("result") for result in response.results] == [
        *("compiled", "compiled", "refused", "refused")
    ]
    for result in response.results[2:]:
        assert (result.refused.code, result.refused.reason) == (8, "ANSWER_FULL")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Makes each compile take 20 ms; says how many there were."""
    compile_config = planner_service.compile_config
    count = 0

    def compile_slowly(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        time.sleep(0.02)
        return compile_config(*arguments)

    monkeypatch.setattr(planner_service, "compile_config", compile_slowly)
    return lambda: count


async def test_other_calls_are_answered_during_a_batch(
    settings: Settings, slow: Callable[[], int]
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        await client.planner.ListModels(planner_pb2.ListModelsRequest())
        call = asyncio.ensure_future(client.planner.CompilePlans(batch(*map(numbered, range(100)))))
        await asyncio.sleep(0.1)
        await client.planner.ListModels(planner_pb2.ListModelsRequest())
        assert not call.done()
        assert 0 < slow() < 90
        await call


async def test_nothing_is_compiled_for_a_call_that_was_cancelled(
    settings: Settings, slow: Callable[[], int]
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        call = client.planner.CompilePlans(batch(*map(numbered, range(100))))
        while not slow():
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.sleep(0.3)
        before = slow()
        await asyncio.sleep(0.1)
        assert slow() == before < 90


async def test_what_was_compiled_before_is_not_compiled_again(
    settings: Settings, slow: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_service, "_MAX_KNOWN", 2)
    async with Planner(settings) as planner, Client(planner.address) as client:
        one, other = asked(num_inference_steps=4), asked(num_inference_steps=5)
        first = await client.planner.CompilePlan(one)
        assert await client.planner.CompilePlan(one) == first
        assert slow() == 1
        assert await client.planner.CompilePlan(other) != first
        await client.planner.CompilePlans(batch(one, numbered(1), one))
        assert slow() == 3
        await client.planner.CompilePlan(other)
        assert slow() == 4, "the one that was longest not asked for made room"
