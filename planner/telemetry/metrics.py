"""What Prometheus is told of a planner. Imported only where metrics are asked for.

Labels take few values: names of the contract, and models that executors announced.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import prometheus_client
from ditplan.v1 import generation_pb2, monitor_pb2, plan_pb2
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from planner.dispatch import facts
from planner.store.values import Ending, State
from planner.telemetry.calls import Call
from planner.telemetry.gauges import Gauges

_OTHER = "other"
_MAX_MODELS = 64
_COLLECTIVES = ("all_to_all", "send_recv", "all_gather", "all_reduce", "decision")
_GROUPS = ("guidance", "ring", "ulysses", "tp", "sequence", "branch")
_CALL_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 600)
_COMPILE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RUN_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_WAIT_SECONDS = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_RELOAD_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800)
_DIFFS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.35, 0.5, 1)
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
_FULL, _ADAPTIVE = plan_pb2.OP_KIND_FULL, plan_pb2.OP_KIND_ADAPTIVE


class Metrics:
    """Listens to facts and stands around calls; ``registry`` has what came of it.

    ``status`` is asked whenever the registry is read, in the thread that reads it; None: nothing
    is queued here.
    """

    def __init__(self, status: Callable[[], monitor_pb2.WatchStatusResponse] | None) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        if status is not None:
            self.registry.register(Gauges(status))
        build = Gauge(
            "ditplan_planner_build_info",
            "1, with the planner's version.",
            ("version",),
            registry=self.registry,
        )
        build.labels(f"ditplan {version('ditplan')}").set(1)
        self._models: set[str] = set()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ditplan_planner_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            full = f"ditplan_planner_{name}"
            return Histogram(full, text, labels, registry=self.registry, buckets=buckets)

        self._open = Gauge(
            "ditplan_planner_open_rpcs",
            "Calls that are open.",
            ("service", "method"),
            registry=self.registry,
        )
        self._calls = histogram(
            "rpc_seconds",
            "Calls by the status that they ended with, and how long they took.",
            _CALL_SECONDS,
            *("service", "method", "code"),
        )
        self._compile = histogram("compile_seconds", "From a config to its plan.", _COMPILE_SECONDS)
        self._created = counter("generations_created_total", "Accepted generations.")
        self._ended = counter(
            "generations_ended_total",
            "Ended generations; code is OK or that of the failure.",
            *("state", "code"),
        )
        self._waits = histogram(
            "queue_seconds", "From creation to an executor's first attachment.", _WAIT_SECONDS
        )
        self._attempts = histogram(
            "generation_attempts", "Leases that a generation took to end.", (0, 1, 2, 3, 5, 10)
        )
        self._granted = counter("leases_granted_total", "Leases given to executors.", "model")
        self._lost = counter(
            "leases_lost_total",
            "Leases whose executor went without a word: expired, stuck or restarted.",
            "cause",
        )
        self._again = counter("generations_requeued_total", "Running work that was queued again.")
        self._steps = counter(
            "steps_total",
            "Steps by what was done (full: some column computed) and who decided: plan or run.",
            *("model", "kind", "decided"),
        )
        self._step_seconds = histogram(
            "step_seconds", "A step, as its executor measured it.", _STEP_SECONDS, "model", "kind"
        )
        self._diffs = histogram(
            "residual_diff_ratio",
            "Residual diffs of DBCache tests, by what they led to.",
            _DIFFS,
            "kind",
        )
        self._runs = histogram(
            "run_seconds", "Succeeded runs, from prompt to picture.", _RUN_SECONDS, "model"
        )
        self._cached = histogram(
            "run_cached_ratio", "Cached steps of a succeeded run.", _TENTHS, "model"
        )
        self._reloads = histogram(
            "reload_seconds", "Models loaded anew for a run.", _RELOAD_SECONDS, "model"
        )
        labels = ("collective", "group")
        self._exchanges = counter("exchanges_total", "Collectives of succeeded runs.", *labels)
        self._bytes = counter(
            "exchanged_bytes_total", "Bytes that one rank gave to collectives.", *labels
        )

    @contextmanager
    def call(self, call: Call) -> Iterator[None]:
        """Counts a call and measures how long it takes."""
        began = time.perf_counter()
        is_open = self._open.labels(call.service, call.method)
        is_open.inc()
        try:
            yield
        finally:
            is_open.dec()
            seconds = time.perf_counter() - began
            self._calls.labels(call.service, call.method, call.code).observe(seconds)

    def hear(self, fact: facts.Fact) -> None:
        match fact:
            case facts.Stepped():
                self._count_steps(fact)
            case facts.Compiled(seconds):
                self._compile.observe(seconds)
            case facts.Created():
                self._created.inc()
            case facts.Granted(lease):
                self._granted.labels(self._model(lease.executor.model)).inc()
            case facts.Attached(lease, generation):
                if lease.epoch == 1 and not lease.steps_done:
                    waited = time.time() - generation.create_time.ToMicroseconds() / 1e6
                    self._waits.observe(max(waited, 0.0))
            case facts.Lost():
                self._lost.labels(fact.cause).inc()
            case facts.Requeued():
                self._again.inc()
            case facts.Ended():
                self._count_end(fact)

    def _count_steps(self, fact: facts.Stepped) -> None:
        model = self._model(fact.lease.executor.model)
        planned = fact.program
        for step in fact.steps:
            full = False
            for op in step.ops:
                full |= op.kind == _FULL
                # One that is no number would spoil the sum for ever.
                if op.HasField("residual_diff") and math.isfinite(op.residual_diff):
                    word = "full" if op.kind == _FULL else "cached"
                    self._diffs.labels(word).observe(op.residual_diff)
            kind = "full" if full else "cached"
            numbers = planned.steps[step.step].ops
            adaptive = any(n and planned.ops[n - 1].kind == _ADAPTIVE for n in numbers)
            self._steps.labels(model, kind, "run" if adaptive else "plan").inc()
            self._step_seconds.labels(model, kind).observe(step.milliseconds / 1e3)

    def _count_end(self, fact: facts.Ended) -> None:
        ending, lease = fact.ending, fact.lease
        failure = ending.failure
        code = "OK" if failure is None else failure.code
        self._ended.labels(ending.state.name.lower(), code).inc()
        self._attempts.observe(0 if lease is None else lease.epoch)
        if lease is not None and ending.state is State.SUCCEEDED:
            self._count_record(self._model(lease.executor.model), ending)

    def _count_record(self, model: str, ending: Ending) -> None:
        record = ending.record
        assert record is not None, "a success has one"
        self._runs.labels(model).observe(record.total_seconds)
        if record.steps:
            cached = sum(not _is_full(step) for step in record.steps)
            self._cached.labels(model).observe(cached / len(record.steps))
        if record.reload_seconds:
            self._reloads.labels(model).observe(record.reload_seconds)
        for exchange in record.exchanges:
            collective = exchange.collective if exchange.collective in _COLLECTIVES else _OTHER
            group = exchange.group if exchange.group in _GROUPS else _OTHER
            self._exchanges.labels(collective, group).inc(exchange.calls)
            self._bytes.labels(collective, group).inc(exchange.bytes)

    def _model(self, name: str) -> str:
        """The label of a model: only so many are told apart."""
        if name not in self._models:
            if len(self._models) >= _MAX_MODELS:
                return _OTHER
            self._models.add(name)
        return name


def _is_full(step: generation_pb2.StepOutcome) -> bool:
    return any(op.kind == _FULL for op in step.ops)
