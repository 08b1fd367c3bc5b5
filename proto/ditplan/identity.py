"""The part of the contract that protobuf cannot say: how a plan's id follows from its program."""

from __future__ import annotations

import hashlib

from ditplan.v1.plan_pb2 import Program


def plan_id(program: Program) -> str:
    """Lower-case hex SHA-256 of the program's canonical bytes.

    Canonical bytes are the deterministic protobuf serialisation. A program holds no maps, so they
    are the same in every process, on every machine and in every language.
    """
    return hashlib.sha256(program.SerializeToString(deterministic=True)).hexdigest()
