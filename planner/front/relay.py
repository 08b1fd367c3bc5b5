"""Forwards calls to the planner that dispatches, as bytes, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from planner.access.identity import caller
from planner.dispatch.shutdown import Shutdown
from planner.errors import DETAILS_KEY, CallRefused, ErrorReason
from planner.front.executors import Executors
from planner.front.headers import Pair, forwarded
from planner.front.link import Link
from planner.listening.call_time import CallTime
from planner.listening.refusals import end_call

# Without the details of a deliberate status they say that the other side is gone, or never was it.
_BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
# While this side's own identity is not accepted, they are about that.
_NOT_LET_IN = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_RETRY_SECONDS = 1.0
_MAKE = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

Handler = Callable[[Any, Any], Any]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


class Relay:
    """``traceparent``: that of the call which is being answered."""

    def __init__(
        self, link: Link, executors: Executors, shutdown: Shutdown, traceparent: Callable[[], str]
    ) -> None:
        self._link = link
        self._executors = executors
        self._shutdown = shutdown
        self._traceparent = traceparent
        self._streams: set[Any] = set()

    def handler(
        self, services: Iterable[ServiceDescriptor], special: dict[str, Handler]
    ) -> grpc.GenericRpcHandler:
        """Answers every method of these services; ``special`` by their path in another way."""
        made: dict[str, Any] = {}
        for service in services:
            for method in service.methods:
                path = path_of(method)
                shape = method.client_streaming, method.server_streaming
                answer = special.get(path) or self._forwarding(path, *shape)
                made[path] = _MAKE[shape](answer, request_deserializer=bytes)
        return _Handlers(made)

    def _forwarding(self, path: str, request_streams: bool, streams: bool) -> Handler:
        method = self._link.method
        if not streams:

            async def answer(request: Any, context: Any) -> bytes:
                dial = method(path, request_streams=request_streams)
                return await self.answer(self.begin(dial, request, context), context)

            return answer

        async def answers(request: Any, context: Any) -> AsyncGenerator[bytes, None]:
            self._shutdown.refuse_if_begun()
            dial = method(path, request_streams=request_streams, streams=True)
            call = self.begin(dial, request, context)
            try:
                async with aclosing(self.answers(call, aiter(call), context)) as messages:
                    async for message in messages:
                        yield message
            finally:
                call.cancel()

        return answers

    def begin(self, dial: Any, request: Any, context: Any, *, keeps_work: bool = False) -> Any:
        """The call in the name of who calls, with the time that is left of theirs."""
        metadata = self.metadata(context, keeps_work=keeps_work)
        return dial(request, timeout=CallTime.of(context).seconds, metadata=metadata)

    def metadata(self, context: Any, *, keeps_work: bool = False) -> tuple[Pair, ...]:
        return forwarded(
            context.invocation_metadata() or (),
            caller=caller().name,
            credentials=self._link.credentials(),
            traceparent=self._traceparent(),
            keeps_work=keeps_work,
        )

    async def answer(self, call: Any, context: Any) -> bytes:
        """The one answer of a call, which ends as it did."""
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            await self._end(context, error)
        await _head(call, context)
        await _tail(call, context)
        return answer

    async def answers(
        self, call: Any, messages: AsyncIterator[bytes], context: Any
    ) -> AsyncGenerator[bytes, None]:
        """The messages of a call, each once the one before it is taken; it ends as the call did."""
        self._streams.add(call)
        begun = False
        try:
            async for message in messages:
                if not begun:
                    begun = True
                    await _head(call, context)
                yield message
            await _tail(call, context)
        except grpc.aio.AioRpcError as error:
            await self._end(context, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                self._shutdown.refuse_if_begun()
            raise
        finally:
            self._streams.discard(call)

    def stop(self) -> None:
        """Ends the open streams, once the shutdown has begun."""
        for call in list(self._streams):
            call.cancel()

    async def _end(self, context: Any, error: grpc.aio.AioRpcError) -> NoReturn:
        code, trailers = error.code(), tuple(error.trailing_metadata() or ())
        broken = code in _BROKEN and not any(key == DETAILS_KEY for key, _ in trailers)
        if broken or (code in _NOT_LET_IN and self._executors.away):
            raise _unreachable(error.details() or code.name)
        await end_call(context, code, error.details() or "", trailers)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, by_path: dict[str, Any]) -> None:
        self._by_path = by_path

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._by_path.get(handler_call_details.method)


async def _head(call: Any, context: Any) -> None:
    if initial := tuple(await call.initial_metadata()):
        await context.send_initial_metadata(initial)


async def _tail(call: Any, context: Any) -> None:
    if trailing := tuple(await call.trailing_metadata()):
        context.set_trailing_metadata(trailing)


def _unreachable(why: str) -> CallRefused:
    return CallRefused(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.DISPATCH_UNREACHABLE,
        f"the planner that dispatches cannot be reached from this one: {why}",
        retry_seconds=_RETRY_SECONDS,
    )
