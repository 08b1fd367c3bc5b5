"""Has every call of the services seen by someone who counts or traces it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import grpc

from planner.handlers import behaviour_of, make_handler

UNKNOWN = "unknown"

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(slots=True)
class Call:
    """``code``: the name of the status that it ended with, known once it has.

    Service and method are those of the contract, or both `UNKNOWN`.
    """

    service: str
    method: str
    traceparent: str = ""
    code: str = "OK"


class SeenCalls(grpc.aio.ServerInterceptor):
    """Runs the calls of ditplan's services, and those of no service, in the context it is given.

    To stand before the boundary: of its handlers, all are coroutines. Health checks and
    reflection pass unseen.
    """

    def __init__(self, around: Callable[[Call], AbstractContextManager[None]]) -> None:
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None:
            # gRPC answers it itself.
            with self._around(Call(UNKNOWN, UNKNOWN, code=grpc.StatusCode.UNIMPLEMENTED.name)):
                return None
        if not path.startswith("/ditplan."):
            return handler  # type: ignore[no-any-return]
        service, _, method = path[1:].partition("/")
        return make_handler(
            self._seen(handler, service, method),
            request_streaming=handler.request_streaming,
            response_streaming=handler.response_streaming,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _seen(self, handler: Any, service: str, method: str) -> Callable[[Any, Any], Any]:
        inner = behaviour_of(handler)

        async def behaviour(request: Any, context: Any) -> Any:
            call = Call(service, method, _traceparent(context))
            answer = inner(request, context)
            # As at the boundary: not to be held by the traceback of a refusal.
            del request
            with self._around(call):
                try:
                    return await answer
                except asyncio.CancelledError:
                    left = context.time_remaining()
                    late = left is not None and left <= 0
                    call.code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
                    raise
                except BaseException:
                    call.code = _code(context)
                    raise

        return behaviour


def _code(context: Any) -> str:
    """Of a call that was aborted."""
    code = context.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return _CODES.get(number or grpc.StatusCode.UNKNOWN.value[0], "UNKNOWN")


def _traceparent(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            return value
    return ""
