"""How the store writes: whole or not at all, and told apart from a disk that takes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from planner.store.values import StorageFullError

_PRIMARY = 0xFF
# A quota and a limit on a file's size come as an I/O error; only want of space has its own code.
# BUSY: another process, a person's shell perhaps, holds the file.
_CANNOT_WRITE = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
)


@contextmanager
def writing() -> Iterator[None]:
    """Raises StorageFullError where the disk does not take what is written inside."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & _PRIMARY in _CANNOT_WRITE:
            raise StorageFullError(f"{error} ({error.sqlite_errorname})") from error
        raise


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commits what is written inside; rolls it back where that or the commit fails.

    Raises:
        StorageFullError: the disk does not take it.
    """
    with writing():
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
