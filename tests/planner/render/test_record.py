"""The record of a run as JSON."""

from __future__ import annotations

import json
import math

import pytest
from ditplan.v1 import generation_pb2, plan_pb2

from planner.render.record import record_document, replay_program

PROGRAM = plan_pb2.Program(
    num_inference_steps=1,
    columns=[
        plan_pb2.Column(target="transformer", branch=plan_pb2.BRANCH_COND, block_lists=["blocks"])
    ],
    ops=[plan_pb2.Op(kind=plan_pb2.OP_KIND_FULL, reason=plan_pb2.REASON_REPLAY)],
    steps=[plan_pb2.Step(ops=[1])],
)


@pytest.mark.parametrize(("diff", "written"), [(0.25, 0.25), (math.nan, None), (math.inf, None)])
def test_a_record_is_json_whatever_the_diffs_were(diff: float, written: float | None) -> None:
    done = generation_pb2.OpOutcome(kind=plan_pb2.OP_KIND_FULL, residual_diff=diff)
    record = generation_pb2.Record(
        program=PROGRAM,
        cache_bytes=[2**40],
        reload_seconds=12.5,
        steps=[generation_pb2.StepOutcome(step=0, ops=[done])],
    )
    document = record_document(generation_pb2.Generation(record=record))
    text = json.dumps(document, allow_nan=False)
    assert document["steps"][0]["ops"][0]["residual_diff"] == written
    assert document["cache_bytes"] == [2**40]
    assert document["reload_seconds"] == 12.5
    assert replay_program(json.loads(text)) == PROGRAM
