"""``ditplan.v1.GenerationService``: what clients call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ditplan.v1 import generation_pb2
from ditplan.v1.generation_pb2_grpc import GenerationServiceServicer

from planner.access.forwarded import KEEPS_WORK
from planner.access.identity import caller, is_shown_out
from planner.dispatch.settlement import Settlement
from planner.dispatch.shutdown import Shutdown
from planner.listening.call_time import CallTime
from planner.service.creation import Creation
from planner.service.downloads import read_artifact, unknown_artifact
from planner.service.listing import Listing
from planner.service.models import ModelLookup
from planner.service.names import artifact_id, generation_id, unknown_generation
from planner.service.watch import Watch
from planner.settings import Limits
from planner.store.artifacts import ArtifactFiles
from planner.store.interface import Store
from planner.store.messages import without_pictures


class GenerationService(GenerationServiceServicer):
    def __init__(
        self,
        store: Store,
        files: ArtifactFiles,
        creation: Creation,
        settlement: Settlement,
        shutdown: Shutdown,
        watch: Watch,
        models: ModelLookup,
        limits: Limits,
    ) -> None:
        self._store = store
        self._files = files
        self._creation = creation
        self._settlement = settlement
        self._shutdown = shutdown
        self._watch = watch
        self._listing = Listing(store, models, limits)
        self._chunk_bytes = limits.chunk_bytes

    async def CreateGeneration(
        self, request: generation_pb2.CreateGenerationRequest, context: Any
    ) -> generation_pb2.CreateGenerationResponse:
        if request.validate_only:
            admitted = self._creation.admit(request)
            return generation_pb2.CreateGenerationResponse(
                generation=generation_pb2.Generation(
                    spec=without_pictures(admitted.spec),
                    plan=admitted.plan,
                    priority=request.priority,
                    deadline=request.deadline if request.HasField("deadline") else None,
                ),
                diagnostics=admitted.diagnostics,
            )
        created, diagnostics = self._creation.create(request, caller().name)
        return generation_pb2.CreateGenerationResponse(
            generation=self._generation(created), diagnostics=diagnostics
        )

    async def GetGeneration(
        self, request: generation_pb2.GetGenerationRequest, context: Any
    ) -> generation_pb2.GetGenerationResponse:
        generation = self._generation(generation_id(request.name))
        return generation_pb2.GetGenerationResponse(generation=generation)

    async def ListGenerations(
        self, request: generation_pb2.ListGenerationsRequest, context: Any
    ) -> generation_pb2.ListGenerationsResponse:
        return self._listing.page(request, caller())

    async def CancelGeneration(
        self, request: generation_pb2.CancelGenerationRequest, context: Any
    ) -> generation_pb2.CancelGenerationResponse:
        generation = generation_id(request.name)
        self._check_visible(generation)
        self._settlement.cancel(generation, "a client cancelled it")
        return generation_pb2.CancelGenerationResponse(generation=self._generation(generation))

    async def WatchGeneration(
        self, request: generation_pb2.WatchGenerationRequest, context: Any
    ) -> AsyncGenerator[generation_pb2.WatchGenerationResponse, None]:
        generation = generation_id(request.name)
        self._check_visible(generation)
        async with aclosing(self._watch.events(generation, request.after_sequence)) as events:
            async for event in events:
                yield generation_pb2.WatchGenerationResponse(event=event)

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[generation_pb2.GenerateResponse, None]:
        called = CallTime.of(context)
        created, _ = self._creation.create(
            generation_pb2.CreateGenerationRequest(
                request_id=request.request_id,
                spec=request.spec,
                queue_without_executor=request.queue_without_executor,
                deadline=request.deadline if request.HasField("deadline") else None,
                priority=request.priority,
            ),
            caller().name,
            called.ends_by,
        )
        try:
            async with aclosing(self._watch.events(created, 0)) as events:
                async for event in events:
                    yield generation_pb2.GenerateResponse(event=event)
        except (asyncio.CancelledError, GeneratorExit):
            # A planner that stops, or no longer knows the token, ends calls too, and means no harm
            # to the work.
            if not (self._shutdown.begun or is_shown_out() or _keeps_work(context)):
                expired = called.has_expired()
                what = "reached its deadline" if expired else "was cancelled"
                reason = f"the call that asked for it {what}"
                self._settlement.give_up(created, reason, expired=expired)
            raise

    async def ReadArtifact(
        self, request: generation_pb2.ReadArtifactRequest, context: Any
    ) -> AsyncGenerator[generation_pb2.ReadArtifactResponse, None]:
        generation, name = artifact_id(request.name)
        if not self._is_visible(generation):
            raise unknown_artifact(request.name)
        stored = self._store.artifact(generation, name)
        path = None if stored is None else self._files.path(generation, stored.epoch, name)
        async with aclosing(read_artifact(request, stored, path, self._chunk_bytes)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _generation(self, generation: str) -> generation_pb2.Generation:
        self._check_visible(generation)
        found = self._store.generation(generation)
        assert found is not None
        if not caller().sees_all:
            found.ClearField("owner")
        return found

    def _check_visible(self, generation: str) -> None:
        """NOT_FOUND for another client's, which does not exist as far as this one is told."""
        if not self._is_visible(generation):
            raise unknown_generation(generation)

    def _is_visible(self, generation: str) -> bool:
        owner = self._store.owner(generation)
        return owner is not None and caller().may_see(owner)


def _keeps_work(context: Any) -> bool:
    return any(key == KEEPS_WORK for key, _ in context.invocation_metadata() or ())
