"""What Prometheus is told of an executor. Imported only where metrics are asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from executor.agent.telemetry import facts
from executor.engine.program import OpKind, StepOutcome

_STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RUN_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_LOAD_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Listens to facts; ``registry`` has what came of them."""

    def __init__(self, device_index: int = 0) -> None:
        """``device_index``: of the CUDA device, where there is one."""
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_DeviceMemory(device_index))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ditplan_executor_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ditplan_executor_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            full = f"ditplan_executor_{name}"
            return Histogram(full, text, labels, registry=self.registry, buckets=buckets)

        build = gauge("build_info", "1, with the executor's version.", "version")
        build.labels(version("ditplan")).set(1)
        self._model = gauge(
            "model_info",
            "1, with the model and how it is held.",
            *("model", "device", "dtype", "quantization"),
        )
        self._loads = histogram(
            "model_load_seconds", "Loads of the model, the first and those anew.", _LOAD_SECONDS
        )
        self._connected = gauge("planner_connected", "Whether the planner answers.")
        self._running = gauge("running", "Whether a run is executed.")
        self._runs = histogram(
            "run_seconds",
            "Runs from lease to delivery, by the code that they ended with.",
            _RUN_SECONDS,
            "code",
        )
        self._steps = histogram(
            "step_seconds",
            "Steps; full where some column computed every block.",
            _STEP_SECONDS,
            "kind",
        )
        labels = ("collective", "group")
        self._exchanges = counter("exchanges_total", "Collectives of succeeded runs.", *labels)
        self._bytes = counter(
            "exchanged_bytes_total", "Bytes that rank 0 gave to collectives.", *labels
        )

    def hear(self, fact: facts.Fact) -> None:
        match fact:
            case facts.StepDone(outcome):
                kind = "full" if _is_full(outcome) else "cached"
                self._steps.labels(kind).observe(outcome.milliseconds / 1e3)
            case facts.ModelLoaded():
                self._loads.observe(fact.seconds)
                self._model.clear()
                self._model.labels(fact.model, fact.device, fact.dtype, fact.quantization).set(1)
            case facts.PlannerSeen(answers):
                self._connected.set(answers)
            case facts.RunBegan():
                self._running.set(1)
            case facts.RunEnded():
                self._running.set(0)
                self._runs.labels(fact.code).observe(fact.seconds)
                for each in fact.completion.exchanges if fact.completion else ():
                    self._exchanges.labels(each.collective, each.group).inc(each.calls)
                    self._bytes.labels(each.collective, each.group).inc(each.bytes)


class _DeviceMemory(Collector):
    """Of this rank's CUDA device, as PyTorch counts it; nothing on others."""

    def __init__(self, index: int) -> None:
        self._index = index

    def collect(self) -> Iterator[GaugeMetricFamily]:
        memory = GaugeMetricFamily(
            "ditplan_executor_device_memory_bytes",
            "Memory of rank 0's CUDA device: allocated, reserved, and the most allocated so far.",
            labels=("kind",),
        )
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            memory.add_metric(("allocated",), torch.cuda.memory_allocated(self._index))
            memory.add_metric(("reserved",), torch.cuda.memory_reserved(self._index))
            memory.add_metric(("peak",), torch.cuda.max_memory_allocated(self._index))
        yield memory


def _is_full(outcome: StepOutcome) -> bool:
    return any(op is not None and op.kind is OpKind.FULL for op in outcome.ops)
