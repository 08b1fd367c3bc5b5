"""Artifact files: whole or not there, and nowhere but below their directory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from planner.store.artifacts import ArtifactFiles, is_artifact_name


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    return ArtifactFiles(tmp_path)


def write(files: ArtifactFiles, epoch: int, name: str, data: bytes = b"data") -> str:
    with files.write("g", epoch, name) as file:
        file.append(data)
        return file.publish()


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../x", "a\\b", "a\0b", "a\n", "é.png", "x" * 129]
)
def test_names_that_are_more_than_a_file_name_are_refused(name: str) -> None:
    assert not is_artifact_name(name)


def test_a_file_is_there_whole_or_not_at_all(files: ArtifactFiles, tmp_path: Path) -> None:
    path = files.path("g", 1, "image.png")
    with files.write("g", 1, "image.png") as file:
        file.append(b"half")
        assert not path.exists()
    assert not path.exists()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

    with files.write("g", 1, "image.png") as file:
        file.append(b"wh")
        file.append(b"ole")
        assert file.publish() == hashlib.sha256(b"whole").hexdigest()
        assert file.size_bytes == 5
    assert path.read_bytes() == b"whole"


def test_attempts_do_not_share_files(files: ArtifactFiles) -> None:
    write(files, 1, "image.png", b"one")
    write(files, 2, "image.png", b"two")
    assert files.path("g", 1, "image.png").read_bytes() == b"one"


def test_discarding_keeps_only_what_was_published(files: ArtifactFiles, tmp_path: Path) -> None:
    write(files, 1, "image.png")
    write(files, 2, "image.png")
    write(files, 2, "draft.png")
    files.discard_others("g", 2, ["image.png"])
    kept = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert kept == ["g/2/image.png"]
    files.discard_others("g", None, ())
    assert list(tmp_path.glob("g/*")) == []
