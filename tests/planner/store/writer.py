"""Writes to a store without end, and says on stdout what it has been promised."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2

from planner.store.sqlite import SqliteStore
from planner.store.values import Ending, Needs, NewGeneration, State


def new(
    generation: str, requirement: str = "r", request_id: str = "", **changes: Any
) -> NewGeneration:
    program = plan_pb2.Program(num_inference_steps=3, steps=[plan_pb2.Step(ops=[1])] * 3)
    return NewGeneration(
        generation=generation,
        request_id=request_id,
        request_digest=b"digest",
        needs=Needs(requirement, "m", plan_pb2.Program()),
        spec=generation_pb2.GenerationSpec(model="m", prompt="p"),
        plan=plan_pb2.Plan(plan_id="id", program=program),
        diagnostics=(),
        queue_deadline=2e9,
        **changes,
    )


def outcome(step: int) -> generation_pb2.StepOutcome:
    return generation_pb2.StepOutcome(step=step, milliseconds=1.0)


def main(path: str, first: int) -> None:
    """Does everything that a store can, with numbers from ``first`` on."""
    store = SqliteStore(Path(path))
    executor = executor_pb2.Executor(name="e")
    cancelled = Ending(State.CANCELLED, failure=generation_pb2.Failure(code="CANCELLED"))
    for lease in store.leases_of("e"):
        store.requeue(lease, "the planner was killed", 2e9)
    for i in itertools.count(first):
        generation = f"{i:016x}"
        store.create(new(generation, request_id=generation, owner="o", priority=i % 7 - 3))
        print("accepted", generation, flush=True)
        lease = store.take(["r"], executor, 2e9)
        assert lease is not None
        if i % 3 == 0:
            store.add_steps(lease, [outcome(0)], 2e9)
            store.requeue(lease, "lost", 2e9)
            lease = store.take(["r"], executor, 2e9)
            assert lease is not None
        for step in range(3):
            store.add_steps(lease, [outcome(step)], 2e9)
        store.add_artifact(lease, generation_pb2.Artifact(name="image.png", size_bytes=9))
        if i % 5 == 0:
            store.request_stop(lease.generation, "CANCELLED", "why", 2e9)
            store.end_leased(lease, cancelled)
            print("cancelled", lease.generation, flush=True)
        else:
            store.end_leased(lease, Ending(State.SUCCEEDED, record=generation_pb2.Record()))
            print("succeeded", lease.generation, flush=True)
        if i % 4 == 0:
            store.compact(2e9, 2)
            for old in store.ended_before(2e9, 1):
                print("forgetting", old, flush=True)
                store.forget(old)
            store.give_back(8)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
