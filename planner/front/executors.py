"""The executors that are connected to the planner that dispatches, as far as a replica knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import grpc
import structlog
from ditplan.dispatch.v1 import front_pb2
from ditplan.v1 import executor_pb2

from planner.dispatch.matching import Offer
from planner.errors import CallRefused
from planner.front.link import Link

_WATCH = "/ditplan.dispatch.v1.FrontService/WatchExecutors"
_RETRY_SECONDS = 0.2
_MAX_REMEMBERED = 256
_REFUSALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)

log = structlog.get_logger(__name__)


class Executors:
    """Follows them for as long as that planner can be reached.

    ``away`` says why it cannot; "" while it can. Meanwhile no executor counts as connected, but the
    models that they served are still known.
    """

    def __init__(self, link: Link, on_change: Callable[[], None]) -> None:
        """``on_change`` is called when the planner is reached, or no longer."""
        self._link = link
        self._on_change = on_change
        self._offers: dict[str, Offer] = {}
        self._remembered: dict[str, executor_pb2.Executor] = {}
        self._decided = asyncio.Event()
        self.away = "it has not been reached yet"

    def connected(self) -> list[Offer]:
        return list(self._offers.values())

    def remember_model(self, model: str, announced: executor_pb2.Executor) -> None:
        self._remembered.pop(model, None)
        self._remembered[model] = announced
        if len(self._remembered) > _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def remembered_model(self, model: str) -> executor_pb2.Executor | None:
        """None while the planner can be reached: it knows better."""
        return self._remembered.get(model) if self.away else None

    async def first_word(self, seconds: float) -> None:
        """Until it is known who is connected, or that this is not to be known; no longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._decided.wait()

    async def follow(self, offer: Callable[[executor_pb2.Executor], Offer]) -> None:
        """Until it is cancelled. ``offer``: what an executor offers that announces this."""
        while True:
            try:
                await self._watch(offer)
                self._lost("it ended the call")
            except grpc.aio.AioRpcError as error:
                refused = error.code() in _REFUSALS
                self._lost(error.details() or error.code().name, refused=refused)
            await asyncio.sleep(_RETRY_SECONDS)
            self._link.follow()

    async def _watch(self, offer: Callable[[executor_pb2.Executor], Offer]) -> None:
        call = self._link.method(_WATCH, streams=True)(
            front_pb2.WatchExecutorsRequest().SerializeToString(),
            metadata=self._link.credentials(),
        )
        found: dict[str, Offer] = {}
        async for raw in call:
            change = front_pb2.WatchExecutorsResponse.FromString(raw)
            match change.WhichOneof("change"):
                case "connected":
                    try:
                        found[change.connected.name] = offer(change.connected)
                    except CallRefused as refused:
                        log.error(
                            "executor_not_understood",
                            executor=change.connected.name,
                            reason=refused.message,
                        )
                case "disconnected":
                    found.pop(change.disconnected, None)
                case "complete":
                    self._offers = found
                    self._reached()

    def _reached(self) -> None:
        self.away = ""
        log.info("dispatch_reached", dispatch=self._link.address)
        self._decided.set()
        self._on_change()

    def _lost(self, why: str, *, refused: bool = False) -> None:
        if why != self.away:
            say = log.error if refused else log.warning
            say("dispatch_unreachable", dispatch=self._link.address, reason=why)
        self.away = why
        self._offers = {}
        self._decided.set()
        self._on_change()
