"""The edge of the services: every call passes here and leaves with a deliberate status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from planner.errors import (
    DETAILS_KEY,
    CallRefused,
    Violation,
    internal,
    invalid,
    status_of,
    storage_full,
)
from planner.store.values import StorageFullError

_REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID = 128

log = structlog.get_logger(__name__)


class Boundary(grpc.aio.ServerInterceptor):
    """Parses requests, binds the caller's request id to the logs, and turns exceptions to statuses.

    Parsing happens here because gRPC itself answers bytes that are no message with UNKNOWN.
    """

    def __init__(self) -> None:
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
        if handler is None or not method.startswith("/ditplan."):
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
        answer = _stream_answer if handler.response_streaming else _single_answer

        async def behaviour(raw: Any, context: Any) -> Any:
            call = asyncio.current_task()
            assert call is not None
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            async with _refusals(method, context):
                request = parse(raw, handler.request_deserializer)
                return await answer(inner(request, context), context)

        return behaviour


_HANDLERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


async def _single_answer(answer: Awaitable[Any], context: Any) -> Any:
    return await answer


async def _stream_answer(answers: AsyncGenerator[Any, None], context: Any) -> None:
    # Closed here, not by the garbage collector: a handler's clean-up belongs to its call.
    async with aclosing(answers):
        async for message in answers:
            await context.write(message)


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
            with _storage_refusals():
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


@contextmanager
def _storage_refusals() -> Iterator[None]:
    try:
        yield
    except StorageFullError as full:
        raise storage_full(str(full)) from full


async def _abort(context: Any, refused: CallRefused) -> None:
    status = status_of(refused)
    await context.abort(refused.code, status.message, ((DETAILS_KEY, status.SerializeToString()),))


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str):
            return value[:_MAX_REQUEST_ID]
    return ""
