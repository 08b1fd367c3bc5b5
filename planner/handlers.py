"""What gRPC calls a method by, whichever of its four shapes the method has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

_MAKERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Any) -> Callable[[Any, Any], Any]:
    """What a handler runs."""
    behaviour: Callable[[Any, Any], Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return behaviour


def make_handler(
    behaviour: Callable[[Any, Any], Any],
    *,
    request_streaming: bool,
    response_streaming: bool,
    request_deserializer: Callable[[bytes], Any] | None,
    response_serializer: Callable[[Any], bytes] | None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that runs a behaviour; without a deserializer on bytes."""
    return _MAKERS[request_streaming, response_streaming](
        behaviour,
        request_deserializer=request_deserializer,
        response_serializer=response_serializer,
    )
