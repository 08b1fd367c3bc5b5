"""What a model's name stands for, while executors come and go."""

from __future__ import annotations

import grpc

from planner.service.server import Planner, Settings
from tests.planner.service.peers import Client, Executor, asking, refused

NAME = "our-flux"


async def test_a_name_that_was_served_outlives_its_executors_and_the_planner(
    settings: Settings,
) -> None:
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(client.create(model=NAME))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert [info.reason for info in refusal.infos] == ["UNKNOWN_MODEL"]
        async with Executor(planner.address, model=NAME) as executor, asking(executor):
            pass
    async with Planner(settings) as planner, Client(planner.address) as client:
        refusal = await refused(client.create(model=NAME))
        # Trying again may help: it is no fault of the request.
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
        assert "no executor is connected" in refusal.message
        created = await client.create(model=NAME, queue=True)
        async with (
            Executor(planner.address, model=NAME) as executor,
            asking(executor) as [acquiring],
        ):
            assert (await acquiring).generation == created.name
