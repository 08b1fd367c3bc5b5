"""``Generate`` through a replica: its caller's end cancels the work, the replica's own does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from ditplan.v1 import generation_pb2
from google.protobuf.message import DecodeError

from planner.access.identity import is_shown_out
from planner.dispatch.shutdown import Shutdown
from planner.front.headers import Pair
from planner.front.link import Link
from planner.front.relay import Relay, path_of
from planner.listening.call_time import CallTime

_METHODS = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].methods_by_name
GENERATE = path_of(_METHODS["Generate"])
_CANCEL = path_of(_METHODS["CancelGeneration"])
_CANCEL_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Generate:
    def __init__(self, link: Link, relay: Relay, shutdown: Shutdown) -> None:
        self._link = link
        self._relay = relay
        self._shutdown = shutdown
        self._cancelling: set[asyncio.Task[None]] = set()

    async def answers(self, request: bytes, context: Any) -> AsyncGenerator[bytes, None]:
        self._shutdown.refuse_if_begun()
        called = CallTime.of(context)
        dial = self._link.method(GENERATE, streams=True)
        call = self._relay.begin(dial, request, context, keeps_work=True)
        messages = aiter(call)
        # The first message names the work, so it is waited for even if its caller has gone.
        first = asyncio.ensure_future(anext(messages, b""))
        given_up = False
        try:
            following = self._relay.answers(call, _from(first, messages), context)
            async with aclosing(following) as answers:
                async for message in answers:
                    yield message
        except (asyncio.CancelledError, GeneratorExit):
            # At its deadline the work ends by itself; without a token it goes on.
            kept = self._shutdown.begun or is_shown_out() or called.has_expired()
            given_up = not kept
            raise
        finally:
            if given_up:
                self._give_up(call, first, self._relay.metadata(context))
            else:
                call.cancel()

    async def given_up(self, seconds: float) -> None:
        """Until what callers gave up has been cancelled; no longer than this."""
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=seconds)

    def _give_up(self, call: Any, first: asyncio.Future[bytes], metadata: tuple[Pair, ...]) -> None:
        task = asyncio.create_task(self._cancel_work(call, first, metadata))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel_work(
        self, call: Any, first: asyncio.Future[bytes], metadata: tuple[Pair, ...]
    ) -> None:
        try:
            name = generation_pb2.GenerateResponse.FromString(await first).event.generation
            request = generation_pb2.CancelGenerationRequest(name=name).SerializeToString()
            cancel = self._link.method(_CANCEL)
            await cancel(request, timeout=_CANCEL_SECONDS, metadata=metadata)
        except (grpc.aio.AioRpcError, DecodeError) as error:
            # Refused to begin with, or out of reach: then it runs to its end.
            log.info("work_not_cancelled", reason=str(error))
        finally:
            call.cancel()


async def _from(
    first: asyncio.Future[bytes], messages: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    head = await asyncio.shield(first)
    if not head:
        return
    yield head
    async for message in messages:
        yield message
