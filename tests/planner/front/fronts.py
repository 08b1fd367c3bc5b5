"""Replicas before a planner, and a stand-in of that planner which sees what reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
from ditplan.common.connection import Connection

from planner.front.server import Front
from planner.front.settings import FrontSettings
from planner.settings import Settings
from tests.planner.service.credentials import token


def front_settings(settings: Settings, dispatch: str, **changes: Any) -> FrontSettings:
    """A replica as its planner is, but for the data; with its token where there are tokens."""
    tokens = settings.security.tokens is not None
    made = FrontSettings(
        dispatch,
        Connection(token=token("front")) if tokens else Connection(),
        listen=settings.listen,
        model_roots=settings.model_roots,
        timing=settings.timing,
        limits=settings.limits,
        security=settings.security,
    )
    return replace(made, **changes)


def front_of(settings: Settings, dispatch: str, **changes: Any) -> Front:
    return Front(front_settings(settings, dispatch, **changes))


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, behaviour: Callable[[bytes, Any], Any]) -> None:
        self._handler = grpc.unary_stream_rpc_method_handler(behaviour)

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        return None if "FrontService" in path else self._handler


@asynccontextmanager
async def answering(behaviour: Callable[[bytes, Any], Any]) -> AsyncIterator[str]:
    """A gRPC server that answers every method by this stream; its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Everything(behaviour),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
