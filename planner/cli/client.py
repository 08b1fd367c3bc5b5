"""A client of the generation service, as the command line needs it."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import grpc
from ditplan.common.connection import PLAIN, Connection
from ditplan.v1 import generation_pb2, generation_pb2_grpc, planner_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from planner.codec import diagnostics_from_proto
from planner.diagnostics import Diagnostic

# Longer than any run takes; a wait must end.
RUN_SECONDS = 24 * 3600.0
CALL_SECONDS = 60.0
CANCEL_SECONDS = 5.0
# How long a planner may be away in the middle of a run.
RECONNECT_SECONDS = 30.0
RETRY_SECONDS = 0.2


@dataclass(eq=False)
class Refusal(Exception):
    """A call that the planner refused, with the faults that it names (field, description).

    ``diagnostics`` say of the first faults what they say, with their places in the config.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    faults: tuple[tuple[str, str], ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class Client:
    """Calls one planner. Every call ends within a bound."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)

    def generate(
        self, spec: generation_pb2.GenerationSpec, *, queue: bool = False
    ) -> Iterator[generation_pb2.GenerationEvent]:
        """The events of a new generation, also across a restart of the planner.

        ``queue``: also where no executor that is connected could run it. Leaving the iteration
        early cancels the work.

        Raises:
            Refusal: the planner refused the call, or cannot be reached.
        """
        request = generation_pb2.GenerateRequest(spec=spec, queue_without_executor=queue)
        call: Any = self._stub.Generate(request, timeout=RUN_SECONDS)
        last = generation_pb2.GenerationEvent()
        give_up_at = float("inf")
        try:
            while True:
                try:
                    for response in call:
                        last = response.event
                        give_up_at = float("inf")
                        yield last
                    return
                except grpc.RpcError as error:
                    now = time.monotonic()
                    give_up_at = min(give_up_at, now + RECONNECT_SECONDS)
                    lost = error.code() is grpc.StatusCode.UNAVAILABLE and last.generation
                    if not lost or now > give_up_at:
                        raise refusal_of(error) from None
                time.sleep(RETRY_SECONDS)
                watch = generation_pb2.WatchGenerationRequest(
                    name=last.generation, after_sequence=last.sequence
                )
                call = self._stub.WatchGeneration(watch, timeout=RUN_SECONDS)
        finally:
            call.cancel()
            if last.generation and not last.HasField("finished"):
                self._cancel(last.generation)

    def _cancel(self, generation: str) -> None:
        """For a call that only watches; the end of the one that created the work cancels it."""
        request = generation_pb2.CancelGenerationRequest(name=generation)
        with contextlib.suppress(grpc.RpcError):
            self._stub.CancelGeneration(request, timeout=CANCEL_SECONDS)

    def read(self, generation: str, artifact: generation_pb2.Artifact) -> bytes:
        """An artifact of a finished generation, its checksum verified.

        Goes on where it was when the planner restarts meanwhile.

        Raises:
            Refusal: the planner refused the call, or the data do not match the checksum.
        """
        name = f"{generation}/artifacts/{artifact.name}"
        data = bytearray()
        give_up_at = time.monotonic() + RECONNECT_SECONDS
        while len(data) < artifact.size_bytes:
            request = generation_pb2.ReadArtifactRequest(name=name, offset=len(data))
            try:
                for response in self._stub.ReadArtifact(request, timeout=CALL_SECONDS):
                    data += response.data
                break
            except grpc.RpcError as error:
                lost = error.code() is grpc.StatusCode.UNAVAILABLE
                if not lost or time.monotonic() > give_up_at:
                    raise refusal_of(error) from None
            time.sleep(RETRY_SECONDS)
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise Refusal(grpc.StatusCode.DATA_LOSS, f"{artifact.name} does not match its checksum")
        return bytes(data)


@contextmanager
def connect(address: str, connection: Connection = PLAIN) -> Iterator[Client]:
    """Raises ConnectionOptionsError where the planner cannot be dialled so."""
    for file in connection.exposed():
        click.echo(f"warning: everyone on this machine can read {file}", err=True)
    with connection.open(address) as channel:
        yield Client(channel)


def refusal_of(error: grpc.RpcError) -> Refusal:
    """What a call ended with, its details read."""
    code: grpc.StatusCode = error.code()
    reason = ""
    faults: list[tuple[str, str]] = []
    diagnostics: list[planner_pb2.Diagnostic] = []
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        diagnostic = planner_pb2.Diagnostic()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            faults += [(fault.field, fault.description) for fault in bad.field_violations]
        elif detail.Unpack(diagnostic):
            diagnostics.append(diagnostic)
    found = tuple(diagnostics_from_proto(diagnostics))
    return Refusal(code, error.details() or "", reason, tuple(faults), found)
