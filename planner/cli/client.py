"""A client of the generation service, as the command line needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from ditplan.v1 import generation_pb2, generation_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Longer than any run takes; a wait must end.
RUN_SECONDS = 24 * 3600.0
CALL_SECONDS = 60.0


@dataclass(eq=False)
class Refusal(Exception):
    """A call that the planner refused, with the faults that it names (field, description)."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    faults: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class Client:
    """Calls one planner. Every call ends within a bound."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)

    def generate(
        self, spec: generation_pb2.GenerationSpec, request_id: str = ""
    ) -> Iterator[generation_pb2.GenerationEvent]:
        """The events of a new generation. Leaving the iteration cancels the work.

        Raises:
            Refusal: the planner refused the call, or cannot be reached.
        """
        request = generation_pb2.GenerateRequest(spec=spec, request_id=request_id)
        call = self._stub.Generate(request, timeout=RUN_SECONDS)
        try:
            for response in call:
                yield response.event
        except grpc.RpcError as error:
            raise _refusal(error) from None
        finally:
            call.cancel()

    def read(self, generation: str, artifact: generation_pb2.Artifact) -> bytes:
        """An artifact of a finished generation, its checksum verified.

        Raises:
            Refusal: the planner refused the call, or the data do not match the checksum.
        """
        request = generation_pb2.ReadArtifactRequest(name=f"{generation}/artifacts/{artifact.name}")
        data = bytearray()
        try:
            for response in self._stub.ReadArtifact(request, timeout=CALL_SECONDS):
                data += response.data
        except grpc.RpcError as error:
            raise _refusal(error) from None
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise Refusal(grpc.StatusCode.DATA_LOSS, f"{artifact.name} does not match its checksum")
        return bytes(data)


@contextmanager
def connect(address: str) -> Iterator[Client]:
    with grpc.insecure_channel(address) as channel:
        yield Client(channel)


def _refusal(error: grpc.RpcError) -> Refusal:
    code: grpc.StatusCode = error.code()
    reason = ""
    faults: list[tuple[str, str]] = []
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            faults += [(fault.field, fault.description) for fault in bad.field_violations]
    return Refusal(code, error.details() or "", reason, tuple(faults))
