"""What Prometheus is told of an executor."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from ditplan.dispatch.v1.dispatch_pb2 import Completion

from executor.agent.telemetry.facts import ModelLoaded, PlannerSeen, RunBegan, RunEnded, StepDone
from executor.agent.telemetry.metrics import Metrics
from executor.engine.program import OpKind, OpOutcome, StepOutcome


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ditplan_executor_{name}", labels)


def _step(*kinds: OpKind | None) -> StepDone:
    ops = tuple(None if kind is None else OpOutcome(kind) for kind in kinds)
    return StepDone(StepOutcome(0, ops, 20.0))


def test_a_step_is_full_where_some_column_computed_every_block() -> None:
    metrics = Metrics()
    metrics.hear(_step(OpKind.CACHED, OpKind.FULL))
    metrics.hear(_step(OpKind.CACHED, None))
    metrics.hear(_step(None, OpKind.CACHED))
    assert _value(metrics, "step_seconds_count", kind="full") == 1
    assert _value(metrics, "step_seconds_count", kind="cached") == 2
    assert _value(metrics, "step_seconds_sum", kind="full") == pytest.approx(0.02)


def test_runs_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    completion = Completion()
    completion.exchanges.add(collective="all_to_all", group="ulysses", calls=3, bytes=50)
    metrics.hear(RunBegan("generations/1", 1, "plan", 2, ""))
    assert _value(metrics, "running") == 1
    metrics.hear(RunEnded("OK", "", 1.5, completion))
    assert _value(metrics, "running") == 0
    metrics.hear(RunEnded("ABORTED", "the lease is over", 2.0, None))
    assert _value(metrics, "run_seconds_sum", code="OK") == 1.5
    assert _value(metrics, "run_seconds_count", code="ABORTED") == 1
    exchanged = {"collective": "all_to_all", "group": "ulysses"}
    assert _value(metrics, "exchanges_total", **exchanged) == 3
    assert _value(metrics, "exchanged_bytes_total", **exchanged) == 50


def test_only_what_is_held_now_is_shown() -> None:
    metrics = Metrics()
    metrics.hear(ModelLoaded(3.0, "flux", "cpu", "float32", "none"))
    metrics.hear(ModelLoaded(5.0, "flux", "cpu", "float32", "int8"))
    held = {"model": "flux", "device": "cpu", "dtype": "float32"}
    assert _value(metrics, "model_info", **held, quantization="int8") == 1
    assert _value(metrics, "model_info", **held, quantization="none") is None
    assert _value(metrics, "model_load_seconds_sum") == 8
    metrics.hear(PlannerSeen(True))
    assert _value(metrics, "planner_connected") == 1
    metrics.hear(PlannerSeen(False))
    assert _value(metrics, "planner_connected") == 0


def test_memory_is_that_of_the_rank_s_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def of(index: int) -> int:
        asked.append(index)
        return 1000

    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        memory_allocated=of,
        memory_reserved=of,
        max_memory_allocated=of,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    metrics = Metrics(device_index=4)
    assert _value(metrics, "device_memory_bytes", kind="reserved") == 1000
    assert set(asked) == {4}
