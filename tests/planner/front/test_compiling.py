"""A replica's PlannerService says what that of the planner that dispatches says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import executor_pb2, plan_pb2, planner_pb2

from planner.dispatch.matching import Offer
from planner.errors import Violation, invalid
from planner.front.server import Front
from planner.models.catalog import NAMED
from planner.service.planner_service import PlannerService
from planner.service.server import Planner
from planner.settings import Settings
from tests.planner.front.fronts import front_of, until
from tests.planner.front.test_generations import outcome
from tests.planner.service.peers import ADAPTIVE_CONFIG, MODEL, Client, Executor, asking, refused

SCHNELL = "black-forest-labs/FLUX.1-schnell"
QWEN = "Qwen/Qwen-Image"
LOCAL = "served-by-its-executor-only"
EARLIER = "served-earlier"


def checkpoint(directory: Path) -> Path:
    for path, config in NAMED[SCHNELL].items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(config))
    return directory


def calls(roots: list[Path]) -> list[planner_pb2.CompilePlanRequest]:
    wrong = "cache_config:\n  Fn_compute_block: 1\n  Bn_compute_blocks: 99\n"
    return [
        planner_pb2.CompilePlanRequest(**fields)
        for fields in (
            {"model": MODEL},
            {"model": MODEL, "config": ADAPTIVE_CONFIG, "num_inference_steps": 6},
            {"model": MODEL, "config": wrong},
            {"model": MODEL, "world_size": 2},
            {"model": MODEL, "height": 1 << 20, "width": 1 << 20},
            {"model": MODEL, "num_inference_steps": 10**6},
            {"model": SCHNELL, "config": ADAPTIVE_CONFIG},
            {"model": LOCAL},
            {"model": LOCAL, "config": ADAPTIVE_CONFIG, "dtype": "float32"},
            {"model": EARLIER, "config": ADAPTIVE_CONFIG},
            {"model": "nobody-knows/it"},
            {"model": "black-forest-labs/FLUX.1-de"},
            {"model": ""},
            {"model": "a\nb"},
            {"model": "x" * 1000},
            {"model": "../../etc"},
            *({"model": str(root)} for root in roots),
            {"model": str(roots[0] / ".." / roots[0].name)},
        )
    ]


@asynccontextmanager
async def both(settings: Settings, **changes: Any) -> AsyncIterator[tuple[Client, Client, Front]]:
    """Clients of a planner and of its replica, while executors of three models come and go."""
    placed = plan_pb2.Placement(quant_type="int8_weight_only")
    async with (
        Planner(settings) as planner,
        Client(planner.address) as direct,
        front_of(settings, planner.address, **changes) as front,
        Client(front.address) as client,
    ):
        async with Executor(planner.address, "gone", model=EARLIER) as earlier, asking(earlier):
            pass
        async with (
            Executor(planner.address, "one") as one,
            Executor(planner.address, "two", world_size=2, placement=placed) as two,
            Executor(planner.address, "other", model=LOCAL, allow_reload=True) as other,
            asking(one, two, other),
        ):
            await asyncio.sleep(settings.timing.connected_grace + 0.1)
            names = {"one", "two", "other"}
            await until(lambda: {o.executor for o in front._executors.connected()} == names)
            yield direct, client, front


async def test_a_replica_answers_as_the_planner_does(settings: Settings, tmp_path: Path) -> None:
    roots = [checkpoint(tmp_path / name) for name in ("common", "of-dispatch")]
    served = replace(settings, model_roots=tuple(roots))
    async with both(served, model_roots=(roots[0],)) as (direct, client, _):
        found = calls(roots)
        for request in found:
            through = await outcome(client.planner.CompilePlan(request))
            assert through == await outcome(direct.planner.CompilePlan(request)), request
        for batch in (found, found[:7], [], [found[0]] * 300, found[:1], found[10:11]):
            request = planner_pb2.CompilePlansRequest(requests=batch)
            through = await outcome(client.planner.CompilePlans(request))
            assert through == await outcome(direct.planner.CompilePlans(request)), len(batch)
        models = planner_pb2.ListModelsRequest()
        assert await client.planner.ListModels(models) == await direct.planner.ListModels(models)
        executors = {
            request.model: [
                match.executor for match in (await client.planner.CompilePlan(request)).executors
            ]
            for request in (found[0], found[6], found[7])
        }
        assert executors == {MODEL: ["one", "two"], SCHNELL: [], LOCAL: ["other"]}


async def test_what_an_executor_is_about_to_load_is_told(settings: Settings) -> None:
    config = "quantize_config:\n  quant_type: int8_weight_only\n"
    async with both(settings) as (direct, client, front):
        request = planner_pb2.CompilePlanRequest(model=LOCAL)
        before = await direct.planner.CompilePlan(request)
        assert list(before.executors[0].differences) == []
        await client.create(model=LOCAL, config=config)

        def reloads() -> bool:
            [offer] = [o for o in front._executors.connected() if o.executor == "other"]
            return bool(offer.offered.placement.quant_type or offer.offered.placement.components)

        await until(reloads)
        after = await direct.planner.CompilePlan(request)
        assert after.executors[0].differences
        assert await client.planner.CompilePlan(request) == after


async def test_known_models_are_compiled_here_and_only_unknown_ones_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int, str]] = []
    original = PlannerService._compiled

    def counted(self: PlannerService, request: planner_pb2.CompilePlanRequest) -> Any:
        compiled.append((id(self), request.model))
        return original(self, request)

    monkeypatch.setattr(PlannerService, "_compiled", counted)
    async with both(settings) as (_, client, _):
        for name in (MODEL, LOCAL, QWEN, EARLIER):
            await client.planner.CompilePlan(planner_pb2.CompilePlanRequest(model=name))
        here = {name: service for service, name in compiled}
        assert here[MODEL] == here[LOCAL] == here[QWEN] != here[EARLIER]
        compiled.clear()
        batch = [planner_pb2.CompilePlanRequest(model=name) for name in (MODEL, EARLIER)]
        await client.planner.CompilePlans(planner_pb2.CompilePlansRequest(requests=batch))
        assert {service for service, _ in compiled} == {here[EARLIER]}


async def test_previews_go_on_while_nobody_dispatches(settings: Settings) -> None:
    async with both(settings) as (_, client, _):
        requests = [planner_pb2.CompilePlanRequest(model=name) for name in (MODEL, LOCAL, QWEN)]
        before = [await client.planner.CompilePlan(request) for request in requests]
    # The replica that is asked next has never reached anyone.
    async with front_of(settings, "127.0.0.1:1") as front, Client(front.address) as client:
        answer = await client.planner.CompilePlan(requests[0])
        assert answer.plan == before[0].plan
        assert not answer.executors
        refusal = await refused(client.planner.CompilePlan(requests[1]))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert [info.reason for info in refusal.infos] == ["DISPATCH_UNREACHABLE"]


async def test_models_that_were_served_are_known_while_nobody_dispatches(
    settings: Settings,
) -> None:
    planner = Planner(settings)
    await planner.start()
    async with (
        front_of(settings, planner.address) as front,
        Client(front.address) as client,
        Executor(planner.address, model=LOCAL) as executor,
        asking(executor),
    ):
        await until(front._executors.connected)
        request = planner_pb2.CompilePlanRequest(model=LOCAL)
        before = await client.planner.CompilePlan(request)
        assert [match.executor for match in before.executors] == ["exec-1"]
        await planner.stop()
        await until(lambda: front._executors.away)
        after = await client.planner.CompilePlan(request)
        assert after.plan == before.plan
        assert not after.executors


async def test_an_executor_that_cannot_be_understood_is_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is newer than the replica might announce things."""
    async with (
        Planner(settings) as planner,
        Client(planner.address) as direct,
        Executor(planner.address, "new", model=LOCAL) as new,
        Executor(planner.address, "old") as old,
    ):
        front = front_of(settings, planner.address)
        understood = front._models.offer

        def older(executor: executor_pb2.Executor) -> Offer:
            if executor.name == "new":
                raise invalid([Violation("executor", "is of another time")])
            return understood(executor)

        monkeypatch.setattr(front._models, "offer", older)
        async with asking(new, old), front, Client(front.address) as client:
            await until(lambda: [o.executor for o in front._executors.connected()] == ["old"])
            # Forwarded to whom it is known.
            request = planner_pb2.CompilePlanRequest(model=LOCAL)
            answer = await client.planner.CompilePlan(request)
            assert [match.executor for match in answer.executors] == ["new"]
            assert answer == await direct.planner.CompilePlan(request)
