"""The socket that KEDA dials, in plaintext and without tokens, for it can show none.

Whoever reaches it learns numbers only, and takes no more than the bounds below.
"""

from __future__ import annotations

from dataclasses import replace

import grpc
from ditplan.keda.externalscaler_pb2_grpc import (
    ExternalScalerServicer,
    add_ExternalScalerServicer_to_server,
)

from planner.access.gate import Gate
from planner.listening.boundary import Boundary
from planner.listening.sockets import bind, server_options
from planner.settings import Limits, Timing

# A trigger's metadata take some hundred bytes, and a ScaledObject one stream.
_MESSAGE_BYTES = 64 << 10
_STREAMS = 64
# A peer that asks for nothing dials again when it does; KEDA asks every 30 s.
_IDLE_MS = 300_000


class ScalerPort:
    """Answers as ``answers`` does; ``address`` is known once it has started."""

    def __init__(self, answers: ExternalScalerServicer, timing: Timing) -> None:
        self.address = ""
        gate = Gate(None, replace(Limits(), streams_per_client=_STREAMS))
        self._boundary = Boundary(gate, timing.stalled_seconds, _MESSAGE_BYTES, impatient=True)
        options = (
            *server_options(_MESSAGE_BYTES),
            # Of one connection, with room for short calls beside the streams.
            ("grpc.max_concurrent_streams", 2 * _STREAMS),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
        )
        self._server = grpc.aio.server(interceptors=(self._boundary,), options=options)
        add_ExternalScalerServicer_to_server(answers, self._server)

    def bind(self, listen: str) -> None:
        """Raises `planner.listening.sockets.ListenError`."""
        self.address = bind(self._server, listen, None)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """While the store can still be read."""
        await self._server.stop(grace)
        await self._boundary.drained(grace)
