"""Takes an artifact in from the executor that holds the lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc
import structlog
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import generation_pb2

from planner.access.identity import caller
from planner.dispatch.dispatcher import Dispatcher, stale
from planner.errors import CallRefused, ErrorReason, Violation, invalid
from planner.service.names import generation_id
from planner.settings import Limits
from planner.store.artifacts import ArtifactFiles, ArtifactWriter, is_artifact_name
from planner.store.interface import Store
from planner.store.values import Lease, StaleLeaseError

_MAX_MEDIA_TYPE = 128


class Uploads:
    def __init__(
        self, store: Store, files: ArtifactFiles, dispatcher: Dispatcher, limits: Limits
    ) -> None:
        self._store = store
        self._files = files
        self._dispatcher = dispatcher
        self._limits = limits
        # Attempt and name of every upload that is going on.
        self._making: list[tuple[tuple[str, int], str]] = []

    async def receive(
        self, requests: AsyncIterator[dispatch_pb2.UploadArtifactRequest], idle_seconds: float
    ) -> generation_pb2.Artifact:
        """Stores the file whole or not at all; it is published when its run completes."""
        first = await _next(requests, idle_seconds)
        if first is None or not first.HasField("header"):
            raise invalid([Violation("header", "must come with the first message")])
        header = first.header
        self._check(header)
        generation = generation_id(header.lease.generation, "header.lease.generation")
        structlog.contextvars.bind_contextvars(generation=generation, epoch=header.lease.epoch)
        lease = self._dispatcher.held_lease(generation, header.lease.epoch)
        if not caller().holds(lease.executor.name):
            raise stale()
        with (
            self._counted(lease, header.name),
            self._files.write(lease.generation, lease.epoch, header.name) as file,
        ):
            data = self._checked(first, file, header.name)
            while (following := await _next(requests, idle_seconds)) is not None:
                if following.HasField("header"):
                    raise invalid([Violation("header", "comes twice")])
                await asyncio.to_thread(file.append, data)
                data = self._checked(following, file, header.name)
            # Looked at again: the lease may have ended while the file came in.
            self._dispatcher.held_lease(generation, lease.epoch)
            try:
                digest = await asyncio.to_thread(_finish, file, data)
            except FileNotFoundError:
                # It ended in this very moment, and its files are gone.
                raise stale() from None
            artifact = generation_pb2.Artifact(
                name=header.name,
                media_type=header.media_type,
                size_bytes=file.size_bytes,
                sha256=digest,
            )
        try:
            self._store.add_artifact(lease, artifact)
        except StaleLeaseError:
            raise stale() from None
        return artifact

    def _checked(
        self, message: dispatch_pb2.UploadArtifactRequest, file: ArtifactWriter, name: str
    ) -> bytes:
        """The data of a message, which follows what is in the file."""
        if len(message.data) > self._limits.chunk_bytes:
            most = self._limits.chunk_bytes
            raise invalid([Violation("data", f"is larger than {most} bytes")])
        if file.size_bytes + len(message.data) > self._limits.artifact_bytes:
            most = self._limits.artifact_bytes
            raise _too_much(f"{name} is larger than {most} bytes")
        return message.data

    @contextmanager
    def _counted(self, lease: Lease, name: str) -> Iterator[None]:
        """One more artifact of a run in the making, unless there are too many, made or not."""
        attempt = lease.generation, lease.epoch
        making = [each for of, each in self._making if of == attempt]
        names = self._files.names(*attempt).union(making, [name])
        if len(names) > self._limits.artifacts:
            raise _too_much(f"a run leaves at most {self._limits.artifacts} artifacts")
        entry = attempt, name
        self._making.append(entry)
        try:
            yield
        finally:
            self._making.remove(entry)

    def _check(self, header: dispatch_pb2.ArtifactHeader) -> None:
        found = []
        if not is_artifact_name(header.name):
            found.append(Violation("header.name", "is no plain file name"))
        media_type = header.media_type
        if not media_type.isprintable() or len(media_type.encode()) > _MAX_MEDIA_TYPE:
            found.append(Violation("header.media_type", "is no media type"))
        if found:
            raise invalid(found)


def _finish(file: ArtifactWriter, data: bytes) -> str:
    """The last of a file, and its SHA-256; in one, for a thread is waited for each time."""
    file.append(data)
    return file.publish()


def _too_much(message: str) -> CallRefused:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return CallRefused(code, ErrorReason.ARTIFACTS_TOO_LARGE, message)


async def _next(
    requests: AsyncIterator[dispatch_pb2.UploadArtifactRequest], seconds: float
) -> dispatch_pb2.UploadArtifactRequest | None:
    try:
        async with asyncio.timeout(seconds):
            return await anext(requests, None)
    except TimeoutError:
        raise CallRefused(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            ErrorReason.INVALID_REQUEST,
            f"nothing came within {seconds:g} s",
        ) from None
