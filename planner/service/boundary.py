"""The edge of the services: every call passes here and leaves with a deliberate status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from planner.errors import (
    DETAILS_KEY,
    CallRefused,
    ErrorReason,
    Violation,
    internal,
    invalid,
    status_of,
)
from planner.service.gate import Gate

_REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID = 128
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_ABORT_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Boundary(grpc.aio.ServerInterceptor):
    """Admits calls, parses requests, binds what logs name, and turns exceptions to statuses.

    Parsing happens here because gRPC itself answers bytes that are no message with UNKNOWN.
    """

    def __init__(self, gate: Gate, stalled_seconds: float) -> None:
        self._gate = gate
        self._stalled_seconds = stalled_seconds
        self._calls: set[asyncio.Task[Any]] = set()

    async def drained(self, seconds: float) -> None:
        """Until the handlers of all calls have run to their end.

        A gRPC server that has stopped may still have some in their clean-up.
        """
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_HEALTH):
            return handler
        known: Any = handler
        make = _HANDLERS[known.request_streaming, known.response_streaming]
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            self._guarded(known, method),
            request_deserializer=None,
            response_serializer=known.response_serializer,
        )
        return guarded

    def _guarded(self, handler: Any, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        inner = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        parse = _parsed_stream if handler.request_streaming else _parsed
        streams = handler.request_streaming or handler.response_streaming
        seconds = self._stalled_seconds

        async def behaviour(raw: Any, context: Any) -> Any:
            call = asyncio.current_task()
            assert call is not None
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            async with _refusals(method, context):
                with self._gate.admitted(method, context, streams=streams):
                    if method.startswith(_REFLECTION):
                        raw = _in_time(raw, seconds)
                    request = parse(raw, handler.request_deserializer)
                    if handler.response_streaming:
                        return await _answer_all(inner(request, context), context, seconds)
                    return await inner(request, context)

        return behaviour


_HANDLERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


async def _answer_all(answers: AsyncGenerator[Any, None], context: Any, seconds: float) -> None:
    # Closed here, not by the garbage collector: a handler's clean-up belongs to its call.
    async with aclosing(answers):
        async for message in answers:
            try:
                async with asyncio.timeout(seconds):
                    await context.write(message)
            except TimeoutError:
                # Not closed: that is the end of a call which its client gave up.
                await answers.athrow(_stalled(f"nothing was read for {seconds:g} s"))


async def _in_time(raws: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """The requests of a stream that has no work to wait for."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                raw = await anext(raws, None)
        except TimeoutError:
            raise _stalled(f"nothing was asked for {seconds:g} s") from None
        if raw is None:
            return
        yield raw


def _stalled(text: str) -> CallRefused:
    return CallRefused(grpc.StatusCode.UNAVAILABLE, ErrorReason.STREAM_STALLED, text)


def _parsed(raw: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(raw)
    except DecodeError:
        raise invalid([Violation("", "the request is no message of this method")]) from None


async def _parsed_stream(
    raws: AsyncIterator[bytes], parse: Callable[[bytes], Any]
) -> AsyncIterator[Any]:
    async for raw in raws:
        yield _parsed(raw, parse)


@asynccontextmanager
async def _refusals(method: str, context: Any) -> AsyncIterator[None]:
    request_id = _request_id(context)
    bound = {"request_id": request_id} if request_id else {}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            yield
        except CallRefused as refused:
            log.info(
                "call_refused",
                method=method,
                code=refused.code.name,
                reason=refused.reason.value,
            )
            await _abort(context, refused)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:
            log.exception("call_failed", method=method)
            await _abort(context, internal())


async def _abort(context: Any, refused: CallRefused) -> None:
    status = status_of(refused)
    details = ((DETAILS_KEY, status.SerializeToString()),)
    try:
        async with asyncio.timeout(_ABORT_SECONDS):
            await context.abort(refused.code, status.message, details)
    except TimeoutError:
        # It waits, behind what a peer does not read, in gRPC's hands.
        raise grpc.aio.AbortError(status.message) from None


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str):
            return value[:_MAX_REQUEST_ID]
    return ""
