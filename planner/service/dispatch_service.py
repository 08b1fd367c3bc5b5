"""``ditplan.dispatch.v1.DispatchService``: what executors call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import structlog
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.dispatch.v1.dispatch_pb2_grpc import DispatchServiceServicer

from planner.access.identity import caller
from planner.dispatch.dispatcher import Dispatcher, stale
from planner.dispatch.roster import Roster
from planner.dispatch.shutdown import Shutdown
from planner.service.checks import check_acquire
from planner.service.models import ModelLookup
from planner.service.names import generation_id, unknown_generation
from planner.service.run_stream import first_attach, follow
from planner.service.uploads import Uploads
from planner.settings import Settings
from planner.store.interface import Store


class DispatchService(DispatchServiceServicer):
    def __init__(
        self,
        store: Store,
        roster: Roster,
        models: ModelLookup,
        dispatcher: Dispatcher,
        shutdown: Shutdown,
        uploads: Uploads,
        settings: Settings,
        traceparent: Callable[[str], str],
    ) -> None:
        """``traceparent``: the span of a generation's lease."""
        self._store = store
        self._roster = roster
        self._models = models
        self._dispatcher = dispatcher
        self._shutdown = shutdown
        self._uploads = uploads
        self._settings = settings
        self._traceparent = traceparent

    async def AcquireLease(
        self, request: dispatch_pb2.AcquireLeaseRequest, context: Any
    ) -> dispatch_pb2.AcquireLeaseResponse:
        check_acquire(request, self._settings.limits)
        request.executor.name = caller().executor_name(request.executor.name)
        offer = self._models.offer(request.executor)
        lease = await self._dispatcher.acquire(request.executor, offer, request.wait_seconds)
        if lease is None:
            return dispatch_pb2.AcquireLeaseResponse()
        name = f"generations/{lease.generation}"
        return dispatch_pb2.AcquireLeaseResponse(
            lease=dispatch_pb2.Lease(generation=name, epoch=lease.epoch),
            assignment=self._assignment(lease.generation),
        )

    async def RunLease(
        self, request_iterator: Any, context: Any
    ) -> AsyncGenerator[dispatch_pb2.RunLeaseResponse, None]:
        attach = await first_attach(request_iterator, self._settings.timing.attach_window)
        generation = generation_id(attach.lease.generation, "attach.lease.generation")
        # For whatever is logged of this call.
        structlog.contextvars.bind_contextvars(
            generation=generation,
            epoch=attach.lease.epoch,
            executor=attach.executor[: self._settings.limits.name_bytes],
        )
        lease = self._dispatcher.held_lease(generation, attach.lease.epoch)
        if lease.executor.name != caller().executor_name(attach.executor):
            raise stale()
        found = self._store.generation(generation)
        if found is None:
            raise unknown_generation(generation)
        announced = self._models.offer(lease.executor)
        offer = self._dispatcher.offer_of(lease, announced)
        with self._roster.present(offer, asks_for_work=False):
            session = self._dispatcher.attach(lease, found, reloads=offer is not announced)
            try:
                attached = dispatch_pb2.Attached(next_step=lease.steps_done)
                yield dispatch_pb2.RunLeaseResponse(attached=attached)
                following = follow(self._dispatcher, self._shutdown, session, request_iterator)
                async with aclosing(following) as messages:
                    async for message in messages:
                        yield message
            finally:
                self._dispatcher.detach(session)

    async def UploadArtifact(
        self, request_iterator: Any, context: Any
    ) -> dispatch_pb2.UploadArtifactResponse:
        idle = self._settings.timing.max_acquire_wait
        artifact = await self._uploads.receive(request_iterator, idle)
        return dispatch_pb2.UploadArtifactResponse(artifact=artifact)

    def _assignment(self, generation: str) -> dispatch_pb2.Assignment:
        found = self._store.generation(generation)
        assert found is not None
        for source in ("config", "program", "images"):
            found.spec.ClearField(source)
        found.spec.images.extend(self._store.images(generation))
        return dispatch_pb2.Assignment(
            plan_id=found.plan.plan_id,
            program=found.plan.program,
            spec=found.spec,
            traceparent=self._traceparent(generation),
        )
