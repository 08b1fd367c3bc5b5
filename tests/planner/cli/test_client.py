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
from planner.cli.outcome import refused
from planner.diagnostics import Diagnostic, Severity
from planner.errors import DETAILS_KEY, CallRefused, Violation, invalid, invalid_config, status_of

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


class Refusing(GenerationServiceServicer):
    def __init__(self, refusal: CallRefused) -> None:
        self.refusal = refusal

    def Generate(self, request: Any, context: Any) -> Iterator[Any]:
        status = status_of(self.refusal)
        context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
        context.abort(self.refusal.code, status.message)
        yield


def said(refusal: CallRefused, directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says of a refused call, for a config of two lines."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_GenerationServiceServicer_to_server(Refusing(refusal), server)
    server.add_insecure_port(f"unix:{directory / 'planner.sock'}")
    server.start()
    try:
        with (
            connect(f"unix:{directory / 'planner.sock'}") as client,
            pytest.raises(Refusal) as caught,
        ):
            next(client.generate(generation_pb2.GenerationSpec()))
    finally:
        server.stop(None)
    with pytest.raises(SystemExit) as ended:
        refused(caught.value, source="cache:\n  warmup: many\n", source_name="fast.yaml")
    assert ended.value.code == 2
    return capsys.readouterr().err


def fault(line: int = 2) -> Diagnostic:
    text, hint = "many is no number", "warmup: 4"
    return Diagnostic(Severity.ERROR, "not-a-number", "cache.warmup", text, hint, line, 11)


def test_a_refused_config_is_shown_with_its_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        said(invalid_config([fault()]), tmp_path, capsys)
        == """\
error[not-a-number]: many is no number
  --> fast.yaml:2:11 (cache.warmup)
   |
 1 | cache:
 2 |   warmup: many
   |           ^^^^
  hint: warmup: 4
"""
    )


def test_faults_that_the_status_only_counts_are_counted_here_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(invalid_config([fault() for _ in range(100)]), tmp_path, capsys)
    shown = text.count("--> fast.yaml:2:11")
    assert 5 < shown < 100
    assert text.endswith(f"\n  and {100 - shown} more faults\n")


def test_other_faults_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = invalid([Violation("spec.prompt", "is empty")])
    text = said(refusal, tmp_path, capsys)
    assert text == ("error: INVALID_ARGUMENT: spec.prompt: is empty\n  spec.prompt: is empty\n")
