"""A bare gRPC server that answers every call with the bytes of one file: what a call itself costs.

It listens and answers health checks as a planner does.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def echo(request: bytes, context: Any) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(echo)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return None if details.method.startswith("/grpc.health") else self._handler


async def _serve(address: str, answer: bytes) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(answer),))
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    await status.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.echo", description=__doc__)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--listen", required=True)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.listen, arguments.answer.read_bytes()))
