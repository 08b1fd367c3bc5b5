"""The edge of the services: every call passes here and leaves with a deliberate status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from planner.access.gate import Gate
from planner.errors import CallRefused, ErrorReason, Violation, invalid
from planner.handlers import behaviour_of, make_handler
from planner.listening.refusals import refusals

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
_REFLECTION = "/grpc.reflection."


class Boundary(grpc.aio.ServerInterceptor):
    """Admits calls, parses requests, and has what is raised become a status.

    Parsing happens here because gRPC itself answers bytes that are no message with UNKNOWN, and
    those that are too many without a reason. ``impatient``: waits for no request that does not
    come, also where the gate does not ask who calls.
    """

    def __init__(
        self, gate: Gate, stalled_seconds: float, message_bytes: int, *, impatient: bool = False
    ) -> None:
        self._gate = gate
        self._impatient = impatient or gate.asks_who_calls
        self._message_bytes = message_bytes
        self._stalled_seconds = stalled_seconds
        self._calls: set[asyncio.Task[Any]] = set()

    async def drained(self, seconds: float) -> None:
        """Until the handlers of all calls have run to their end.

        A gRPC server that has stopped may still have some in their clean-up.
        """
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)

    def _note_call(self) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method == _HEALTH_CHECK:
            return handler
        known: Any = handler
        if method == _HEALTH_WATCH:
            return grpc.unary_stream_rpc_method_handler(
                self._counted(known, method),
                request_deserializer=known.request_deserializer,
                response_serializer=known.response_serializer,
            )
        # With identities a stream of requests even where there is one: gRPC would wait for that one
        # for ever, and before anyone has looked at who calls. It takes a sixth more time.
        as_stream = known.request_streaming or self._impatient
        return make_handler(
            self._guarded(known, method, as_stream=as_stream),
            request_streaming=as_stream,
            response_streaming=known.response_streaming,
            request_deserializer=None,
            response_serializer=known.response_serializer,
        )

    def _counted(self, handler: Any, method: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def behaviour(request: Any, context: Any) -> None:
            async with refusals(method, context):
                with self._gate.counted(_HEALTH_WATCH):
                    await handler.unary_stream(request, context)

        return behaviour

    def _guarded(
        self, handler: Any, method: str, *, as_stream: bool
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        inner = behaviour_of(handler)
        parse = partial(_parsed, parse=handler.request_deserializer, most=self._message_bytes)
        streams = handler.request_streaming or handler.response_streaming
        seconds = self._stalled_seconds

        async def answered(raw: Any, context: Any) -> Any:
            async with self._gate.admitted(method, context, streams=streams):
                if method.startswith(_REFLECTION):
                    raw = _in_time(raw, seconds)
                elif as_stream and not handler.request_streaming:
                    raw = await _only(raw, seconds)
                request = _parsed_stream(raw, parse) if handler.request_streaming else parse(raw)
                if handler.response_streaming:
                    return await _answer_all(inner(request, context), context, seconds)
                return await inner(request, context)

        async def behaviour(raw: Any, context: Any) -> Any:
            self._note_call()
            answer = answered(raw, context)
            # Not to be held by the traceback of a refusal, which lives on for a while.
            del raw
            async with refusals(method, context):
                return await answer

        return behaviour


async def _answer_all(answers: AsyncGenerator[Any, None], context: Any, seconds: float) -> None:
    # Closed here, not by the garbage collector: a handler's clean-up belongs to its call.
    async with aclosing(answers):
        async for message in answers:
            try:
                async with asyncio.timeout(seconds):
                    await context.write(message)
            except grpc.aio.InternalError:
                # The peer is gone, or refuses what comes, and nobody has cancelled this call yet.
                raise asyncio.CancelledError from None
            except TimeoutError:
                # Not closed: that is the end of a call which its client gave up.
                await answers.athrow(_stalled(f"nothing was read for {seconds:g} s"))


async def _in_time(raws: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """Messages that wait for nothing on this side."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                raw = await anext(raws, None)
        except TimeoutError:
            raise _stalled(f"nothing came for {seconds:g} s") from None
        if raw is None:
            return
        yield raw


async def _only(raws: AsyncIterator[bytes], seconds: float) -> bytes:
    async for raw in _in_time(raws, seconds):
        return raw
    raise invalid([Violation("", "no message came")])


def _stalled(text: str) -> CallRefused:
    return CallRefused(grpc.StatusCode.UNAVAILABLE, ErrorReason.STREAM_STALLED, text)


def _parsed(raw: bytes, parse: Callable[[bytes], Any], most: int) -> Any:
    if len(raw) > most:
        raise invalid([Violation("", f"the request has {len(raw)} bytes, more than {most}")])
    try:
        return parse(raw)
    except DecodeError:
        raise invalid([Violation("", "the request is no message of this method")]) from None


async def _parsed_stream(
    raws: AsyncIterator[bytes], parse: Callable[[bytes], Any]
) -> AsyncIterator[Any]:
    async for raw in raws:
        yield parse(raw)
