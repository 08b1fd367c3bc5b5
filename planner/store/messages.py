"""Rows of the database as messages of the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from planner.store.values import Lease

SUMMARY_COLUMNS = (
    "number, generation, owner, state, priority, spec, create_time, start_time, end_time, "
    "deadline, attempt, executor, steps_done, failure"
)


def timestamp(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def without_pictures(spec: generation_pb2.GenerationSpec) -> generation_pb2.GenerationSpec:
    """The spec as responses show it: of its pictures only the checksums."""
    shown = generation_pb2.GenerationSpec()
    shown.CopyFrom(spec)
    for image in shown.images:
        image.ClearField("data")
    return shown


def summary(row: sqlite3.Row, retain_seconds: float) -> generation_pb2.Generation:
    """A generation without plan, record and artifacts."""
    message = generation_pb2.Generation(
        name=f"generations/{row['generation']}",
        state=row["state"],
        spec=generation_pb2.GenerationSpec.FromString(row["spec"]),
        create_time=timestamp(row["create_time"]),
        attempt=row["attempt"],
        executor=row["executor"],
        steps_done=row["steps_done"],
        priority=row["priority"],
        owner=row["owner"],
    )
    if row["deadline"] is not None:
        message.deadline.CopyFrom(timestamp(row["deadline"]))
    if row["start_time"] is not None:
        message.start_time.CopyFrom(timestamp(row["start_time"]))
    if row["end_time"] is not None:
        message.end_time.CopyFrom(timestamp(row["end_time"]))
        if retain_seconds:
            message.expire_time.CopyFrom(timestamp(row["end_time"] + retain_seconds))
    if row["failure"] is not None:
        message.failure.ParseFromString(row["failure"])
    return message


def generation(
    row: sqlite3.Row, artifacts: Iterable[bytes], retain_seconds: float
) -> generation_pb2.Generation:
    message = summary(row, retain_seconds)
    message.plan.CopyFrom(plan_pb2.Plan.FromString(row["plan"]))
    if row["record"] is not None:
        message.record.ParseFromString(row["record"])
    message.artifacts.extend(generation_pb2.Artifact.FromString(body) for body in artifacts)
    return message


def lease(row: sqlite3.Row) -> Lease:
    return Lease(
        generation=row["generation"],
        epoch=row["epoch"],
        executor=executor_pb2.Executor.FromString(row["announced"]),
        expires_at=row["expires_at"],
        cancel_code=row["cancel_code"],
        cancel_reason=row["cancel_reason"],
        requirement=row["requirement"],
        plan_id=row["plan_id"],
        steps_done=row["steps_done"],
        step_count=row["step_count"],
        traceparent=row["traceparent"],
        handed_back=row["handed_back"],
    )
