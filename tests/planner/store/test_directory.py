"""A data directory has one planner, and says why it can have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.store.directory import DataDirectory, UnusableDirectoryError
from planner.store.sqlite import SqliteStore


def test_a_second_planner_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path / "data")
    with pytest.raises(UnusableDirectoryError, match="another planner uses it"):
        DataDirectory(tmp_path / "data")
    first.close()
    DataDirectory(tmp_path / "data").close()


def test_what_is_no_directory_is_told_apart_from_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableDirectoryError, match="file/data: Not a directory"):
        DataDirectory(tmp_path / "file" / "data")
    (tmp_path / "ditplan.sqlite3").write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(UnusableDirectoryError, match="file is not a database"):
            DataDirectory(tmp_path)


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ditplan.sqlite3")
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(UnusableDirectoryError, match="schema version 99"):
        DataDirectory(tmp_path)
