"""The command line's client while its planner comes and goes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2
from ditplan.v1.generation_pb2_grpc import (
    GenerationServiceServicer,
    add_GenerationServiceServicer_to_server,
)

from planner.cli.client import Refusal, connect

DATA = b"picture" * 100
ARTIFACT = generation_pb2.Artifact(
    name="image.png", size_bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest()
)


class Breaking(GenerationServiceServicer):
    """Gives an artifact out in pieces and ends a call after each with the next of the codes."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self.codes = list(codes)
        self.offsets: list[int] = []

    def ReadArtifact(self, request: Any, context: Any) -> Iterator[Any]:
        self.offsets.append(request.offset)
        end = request.offset + 100 if self.codes else len(DATA)
        yield generation_pb2.ReadArtifactResponse(data=DATA[request.offset : end])
        if self.codes:
            context.abort(self.codes.pop(0), "gone")


def read(service: Breaking, directory: Path) -> bytes:
    server = grpc.server(ThreadPoolExecutor(2))
    add_GenerationServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{directory / 'planner.sock'}")
    server.start()
    try:
        with connect(f"unix:{directory / 'planner.sock'}") as client:
            return client.read("generations/1", ARTIFACT)
    finally:
        server.stop(None)


def test_a_download_goes_on_where_the_planner_broke_it_off(tmp_path: Path) -> None:
    service = Breaking(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
    assert read(service, tmp_path) == DATA
    assert service.offsets == [0, 100, 200]


def test_a_refused_download_is_not_tried_again(tmp_path: Path) -> None:
    service = Breaking(grpc.StatusCode.NOT_FOUND)
    with pytest.raises(Refusal, match="NOT_FOUND: gone"):
        read(service, tmp_path)
    assert service.offsets == [0]
