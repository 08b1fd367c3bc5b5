"""Planners together with peers of theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from planner.service.server import Planner, Settings
from tests.planner.service.credentials import token, with_tokens
from tests.planner.service.peers import Client, Executor, asking


@asynccontextmanager
async def connected(
    settings: Settings, name: str = "exec-1", **announced: Any
) -> AsyncIterator[tuple[Client, Executor]]:
    """A client of a planner, and an executor that waits there for work."""
    async with (
        Planner(settings) as planner,
        Client(planner.address) as client,
        Executor(planner.address, name, **announced) as executor,
        asking(executor),
    ):
        yield client, executor


@asynccontextmanager
async def known(settings: Settings, *names: str) -> AsyncIterator[list[Client]]:
    """A planner's clients of these names."""
    async with AsyncExitStack() as stack:
        with_names = with_tokens(settings, settings.data.parent)
        planner = await stack.enter_async_context(Planner(with_names))
        yield [
            await stack.enter_async_context(Client(planner.address, token(name))) for name in names
        ]
