"""Clients that a planner knows by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from planner.service.server import Planner, Settings
from tests.planner.service.credentials import token, with_tokens
from tests.planner.service.peers import Client


@asynccontextmanager
async def known(settings: Settings, *names: str) -> AsyncIterator[list[Client]]:
    """A planner's clients of these names."""
    async with AsyncExitStack() as stack:
        named = with_tokens(settings, settings.data.parent)
        planner = await stack.enter_async_context(Planner(named))
        yield [
            await stack.enter_async_context(Client(planner.address, token(name))) for name in names
        ]
