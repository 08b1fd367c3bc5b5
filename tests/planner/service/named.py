"""Clients that a planner knows by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from planner.service.server import Planner, Security, Settings
from planner.service.tokens import token_digest
from tests.planner.service.peers import Client


@asynccontextmanager
async def tokens_for(settings: Settings, *names: str) -> AsyncIterator[list[Client]]:
    """Clients of a planner that knows them by these names; ``admin`` and ``executor`` by role."""
    roles = {"admin": "admin", "executor": "executor"}
    entries = [
        f"- name: {name}\n  role: {roles.get(name, 'client')}\n"
        f"  sha256: {token_digest(name).hex()}\n"
        for name in names
    ]
    settings.data.mkdir(parents=True, exist_ok=True)
    file = settings.data / "tokens.yaml"
    file.write_text("".join(entries))
    file.chmod(0o600)
    async with AsyncExitStack() as stack:
        named = replace(settings, security=Security(tokens=file))
        planner = await stack.enter_async_context(Planner(named))
        yield [await stack.enter_async_context(Client(planner.address, name)) for name in names]
