"""The tables, and how a database file is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

VERSION = 7
# What is left of the write-ahead log once it was long.
_JOURNAL_BYTES = 16 << 20
# For another process that holds the file, while every call of this one waits.
_BUSY_SECONDS = 0.25

# One row of `leases` exists exactly while its generation is RUNNING.
_TABLES = """
-- What the keys of generations stand for.
CREATE TABLE requirements (
  requirement TEXT PRIMARY KEY,
  model TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Large values last: SQLite reads through them to whatever stands behind.
CREATE TABLE generations (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  generation TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  request_id TEXT,
  request_digest BLOB NOT NULL,
  requirement TEXT NOT NULL REFERENCES requirements (requirement),
  model TEXT NOT NULL,
  state INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  turn REAL NOT NULL,
  plan_id TEXT NOT NULL,
  step_count INTEGER NOT NULL,
  step_flops REAL NOT NULL,
  min_flops REAL NOT NULL,
  max_flops REAL NOT NULL,
  create_time REAL NOT NULL,
  queue_time REAL NOT NULL,
  start_time REAL,
  end_time REAL,
  queue_deadline REAL NOT NULL,
  deadline REAL,
  attempt INTEGER NOT NULL DEFAULT 0,
  handed_back INTEGER NOT NULL DEFAULT 0,
  executor TEXT NOT NULL DEFAULT '',
  steps_done INTEGER NOT NULL DEFAULT 0,
  last_sequence INTEGER NOT NULL DEFAULT 0,
  compacted INTEGER NOT NULL DEFAULT 0,
  traceparent TEXT NOT NULL DEFAULT '',
  failure BLOB,
  spec BLOB NOT NULL,
  plan BLOB NOT NULL,
  record BLOB,
  UNIQUE (owner, request_id)
) STRICT;
CREATE INDEX needs ON generations (requirement);
CREATE INDEX queue ON generations (requirement, turn, number) WHERE state = 1;
CREATE INDEX queue_of_all ON generations (turn, number) WHERE state = 1;
CREATE INDEX queue_of_owner ON generations (owner) WHERE state = 1;
CREATE INDEX loads ON generations
  (requirement, plan_id, step_count, step_flops, min_flops, max_flops, model) WHERE state = 1;
CREATE INDEX waits ON generations (requirement, queue_time) WHERE state = 1;
CREATE INDEX queue_deadlines ON generations (queue_deadline) WHERE state = 1;
CREATE INDEX deadlines ON generations (deadline) WHERE deadline IS NOT NULL AND end_time IS NULL;
CREATE INDEX listing ON generations (owner, number, state, model);
CREATE INDEX creations ON generations (create_time, number);
CREATE INDEX ended ON generations (end_time) WHERE end_time IS NOT NULL;
CREATE INDEX uncompacted ON generations (end_time) WHERE end_time IS NOT NULL AND compacted = 0;

-- What executors have announced of their models, so that their names outlive a call.
CREATE TABLE models (
  model TEXT PRIMARY KEY,
  seen REAL NOT NULL,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The pictures that unfinished work starts from.
CREATE TABLE images (
  generation TEXT PRIMARY KEY REFERENCES generations (generation),
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  generation TEXT NOT NULL REFERENCES generations (generation),
  sequence INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  step INTEGER,
  body BLOB NOT NULL,
  PRIMARY KEY (generation, sequence)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX steps ON events (generation, attempt, step) WHERE step IS NOT NULL;

CREATE TABLE leases (
  generation TEXT PRIMARY KEY REFERENCES generations (generation),
  epoch INTEGER NOT NULL,
  executor TEXT NOT NULL,
  announced BLOB NOT NULL,
  expires_at REAL NOT NULL,
  cancel_code TEXT,
  cancel_reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX expiries ON leases (expires_at);

CREATE TABLE artifacts (
  generation TEXT NOT NULL REFERENCES generations (generation),
  epoch INTEGER NOT NULL,
  name TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (generation, epoch, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX sizes ON artifacts (size_bytes);
"""


class StoreVersionError(Exception):
    """The file was written by another version of the planner."""


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file, makes its tables where it is new.

    Raises:
        StoreVersionError: the file holds tables of another version.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    connection.row_factory = sqlite3.Row
    # Has to be said before the file has its first page.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: what a client was told is accepted survives the loss of power too.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
        )
    elif version != VERSION:
        connection.close()
        raise StoreVersionError(f"{path}: schema version {version}, this planner has {VERSION}")
    return connection
