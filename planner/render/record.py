"""The record of a finished run as a JSON document, and the program that such a document holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ditplan.v1 import generation_pb2, plan_pb2
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError


class RecordError(ValueError):
    """A document is no record; the message says where."""


def record_document(generation: generation_pb2.Generation) -> dict[str, Any]:
    """What a finished generation executed, step by step.

    ``steps`` is the one list of decided ops; ``program`` holds the rest of the executed program.
    """
    record = generation.record
    program = plan_pb2.Program()
    program.CopyFrom(record.program)
    program.ClearField("steps")
    program.ClearField("ops")
    spec = generation_pb2.GenerationSpec()
    spec.CopyFrom(generation.spec)
    spec.ClearField("plan_source")
    steps = [
        _step_document(record, outcome) for outcome in sorted(record.steps, key=lambda s: s.step)
    ]
    return {
        "plan_id": record.plan_id,
        "generation": generation.name,
        "executor": generation.executor,
        "attempt": generation.attempt,
        # Not by MessageToDict, which writes 64-bit integers as texts.
        "spec": {
            field.name: [image.sha256 for image in value] if field.name == "images" else value
            for field, value in spec.ListFields()
        },
        "program": MessageToDict(program, preserving_proto_field_name=True),
        "steps": steps,
        "computed_steps": sum(any(op["kind"] == "FULL" for op in s["ops"]) for s in steps),
        "denoise_seconds": record.denoise_seconds,
        "total_seconds": record.total_seconds,
        "reload_seconds": record.reload_seconds,
        "cache_bytes": list(record.cache_bytes),
        "artifacts": [
            {
                "name": each.name,
                "media_type": each.media_type,
                "size_bytes": each.size_bytes,
                "sha256": each.sha256,
            }
            for each in generation.artifacts
        ],
        "exchanges": [
            {
                "collective": each.collective,
                "group": each.group,
                "calls": each.calls,
                "bytes": each.bytes,
            }
            for each in record.exchanges
        ],
    }


def _step_document(
    record: generation_pb2.Record, outcome: generation_pb2.StepOutcome
) -> dict[str, Any]:
    ops = []
    numbers = record.program.steps[outcome.step].ops
    for column, number, done in zip(record.program.columns, numbers, outcome.ops, strict=True):
        if not number:
            continue
        op = record.program.ops[number - 1]
        document: dict[str, Any] = {
            "target": column.target,
            "branch": _name(plan_pb2.Branch, column.branch, "BRANCH_").lower(),
            "group": "+".join(column.block_lists),
            "kind": _name(plan_pb2.OpKind, op.kind, "OP_KIND_"),
            "reason": _name(plan_pb2.Reason, op.reason, "REASON_"),
        }
        if op.refresh:
            document["refresh"] = True
        if done.HasField("residual_diff"):
            # JSON has no NaN, which a model that overflows can report.
            diff = done.residual_diff
            document["residual_diff"] = diff if math.isfinite(diff) else None
        ops.append(document)
    return {"index": outcome.step, "milliseconds": outcome.milliseconds, "ops": ops}


def replay_program(document: Any) -> plan_pb2.Program:
    """The program that does again what a record says was done.

    Raises:
        RecordError: the document is no record.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("steps"), list):
        raise RecordError("is no record: it has no list of steps")
    program = plan_pb2.Program()
    try:
        ParseDict(document.get("program") or {}, program)
    except (ParseError, AttributeError, TypeError) as error:
        raise RecordError(f"program: {error}") from None
    columns = [
        (
            column.target,
            _name(plan_pb2.Branch, column.branch, "BRANCH_").lower(),
            "+".join(column.block_lists),
        )
        for column in program.columns
    ]
    ops: dict[bytes, int] = {}
    for i, step in enumerate(document["steps"]):
        numbers = [0] * len(columns)
        for j, entry in enumerate(_list(step, "ops", f"steps[{i}]")):
            place = f"steps[{i}].ops[{j}]"
            op = _op(entry, place)
            key = (entry.get("target"), entry.get("branch"), entry.get("group"))
            if key not in columns:
                raise RecordError(f"{place}: the program has no column {key}")
            data = op.SerializeToString(deterministic=True)
            if data not in ops:
                ops[data] = len(ops) + 1
                program.ops.append(op)
            numbers[columns.index(key)] = ops[data]
        program.steps.add(ops=numbers)
    program.num_inference_steps = len(program.steps)
    return program


def _op(entry: Any, place: str) -> plan_pb2.Op:
    if not isinstance(entry, Mapping):
        raise RecordError(f"{place}: is no mapping")
    kind = entry.get("kind")
    if kind not in ("FULL", "CACHED"):
        raise RecordError(f"{place}.kind: {kind!r} is not decided; allowed: FULL or CACHED")
    refresh = entry.get("refresh", False)
    if not isinstance(refresh, bool):
        raise RecordError(f"{place}.refresh: {refresh!r} is neither true nor false")
    return plan_pb2.Op(
        kind=plan_pb2.OpKind.Value(f"OP_KIND_{kind}"),
        reason=plan_pb2.REASON_REPLAY,
        refresh=refresh,
    )


def _list(holder: Any, key: str, place: str) -> list[Any]:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    if not isinstance(value, list):
        raise RecordError(f"{place}.{key}: is no list")
    return value


def _name(enum: Any, value: int, prefix: str) -> str:
    name: str = enum.Name(value)
    return name.removeprefix(prefix)
