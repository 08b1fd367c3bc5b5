"""``ditplan.v1.GenerationService``: what clients call."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ditplan.v1 import generation_pb2
from ditplan.v1.generation_pb2_grpc import GenerationServiceServicer

from planner.dispatch.settlement import Settlement
from planner.dispatch.shutdown import Shutdown
from planner.errors import Violation, invalid
from planner.service.creation import Creation
from planner.service.downloads import read_artifact
from planner.service.names import artifact_id, generation_id, unknown_generation
from planner.service.watch import Watch
from planner.settings import Limits
from planner.store.artifacts import ArtifactFiles
from planner.store.interface import Store
from planner.store.messages import without_pictures

_DEFAULT_PAGE = 100
# A page ends here even where it holds fewer generations: clients accept 4 MiB by default.
_MAX_PAGE_BYTES = 1 << 20


class GenerationService(GenerationServiceServicer):
    def __init__(
        self,
        store: Store,
        files: ArtifactFiles,
        creation: Creation,
        settlement: Settlement,
        shutdown: Shutdown,
        watch: Watch,
        limits: Limits,
    ) -> None:
        self._store = store
        self._files = files
        self._creation = creation
        self._settlement = settlement
        self._shutdown = shutdown
        self._watch = watch
        self._limits = limits

    async def CreateGeneration(
        self, request: generation_pb2.CreateGenerationRequest, context: Any
    ) -> generation_pb2.CreateGenerationResponse:
        if request.validate_only:
            admitted = self._creation.admit(request)
            return generation_pb2.CreateGenerationResponse(
                generation=generation_pb2.Generation(
                    spec=without_pictures(admitted.spec), plan=admitted.plan
                ),
                diagnostics=admitted.diagnostics,
            )
        created, diagnostics = self._creation.create(request)
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
        before = _page_start(request.page_token)
        size = min(request.page_size or _DEFAULT_PAGE, self._limits.page_size)
        response = generation_pb2.ListGenerationsResponse()
        total = 0
        for number, generation in self._store.page(before, size + 1):
            if len(response.generations) == size or total > _MAX_PAGE_BYTES:
                response.next_page_token = str(number + 1)
                break
            response.generations.append(generation)
            total += generation.ByteSize()
        return response

    async def CancelGeneration(
        self, request: generation_pb2.CancelGenerationRequest, context: Any
    ) -> generation_pb2.CancelGenerationResponse:
        generation = generation_id(request.name)
        self._generation(generation)
        self._settlement.cancel(generation, "a client cancelled it")
        return generation_pb2.CancelGenerationResponse(generation=self._generation(generation))

    async def WatchGeneration(
        self, request: generation_pb2.WatchGenerationRequest, context: Any
    ) -> AsyncGenerator[generation_pb2.WatchGenerationResponse, None]:
        generation = generation_id(request.name)
        self._generation(generation)
        async with aclosing(self._watch.events(generation, request.after_sequence)) as events:
            async for event in events:
                yield generation_pb2.WatchGenerationResponse(event=event)

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Any
    ) -> AsyncGenerator[generation_pb2.GenerateResponse, None]:
        created, _ = self._creation.create(
            generation_pb2.CreateGenerationRequest(
                request_id=request.request_id,
                spec=request.spec,
                queue_without_executor=request.queue_without_executor,
            )
        )
        try:
            async with aclosing(self._watch.events(created, 0)) as events:
                async for event in events:
                    yield generation_pb2.GenerateResponse(event=event)
        except (asyncio.CancelledError, GeneratorExit):
            # A planner that stops ends its calls too, and means no harm to the work.
            if not self._shutdown.begun:
                reason = "the call that asked for it was cancelled or its deadline passed"
                self._settlement.cancel(created, reason)
            raise

    async def ReadArtifact(
        self, request: generation_pb2.ReadArtifactRequest, context: Any
    ) -> AsyncGenerator[generation_pb2.ReadArtifactResponse, None]:
        generation, name = artifact_id(request.name)
        stored = self._store.artifact(generation, name)
        path = None if stored is None else self._files.path(generation, stored.epoch, name)
        async with aclosing(
            read_artifact(request, stored, path, self._limits.chunk_bytes)
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    def _generation(self, generation: str) -> generation_pb2.Generation:
        found = self._store.generation(generation)
        if found is None:
            raise unknown_generation(generation)
        return found


def _page_start(token: str) -> int | None:
    if not token:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,17}", token) is None:
        raise invalid([Violation("page_token", "was not made by ListGenerations")])
    return int(token)
