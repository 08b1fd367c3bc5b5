"""The metrics that are looked up when Prometheus asks, not counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from ditplan.v1 import executor_pb2, monitor_pb2
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_OTHER = "other"
_MAX_PLACEMENTS = 100


class Gauges(Collector):
    def __init__(self, status: Callable[[], monitor_pb2.WatchStatusResponse]) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status = self._status()
        for name, text, value in (
            ("queued_generations", "Generations in the queue.", status.queued),
            (
                "oldest_queued_seconds",
                "How long the longest waiting generation has waited.",
                status.oldest_queued_seconds,
            ),
            ("running_generations", "Generations that are leased.", status.running),
        ):
            yield GaugeMetricFamily(f"ditplan_planner_{name}", text, value)
        build = GaugeMetricFamily(
            "ditplan_planner_build_info", "1, with the planner's version.", labels=("version",)
        )
        build.add_metric((status.version,), 1)
        yield build
        executors = GaugeMetricFamily(
            "ditplan_planner_executors",
            "Connected executors, by what they hold and whether they run something.",
            labels=("model", "placement", "state"),
        )
        for labels, count in _counted(status).items():
            executors.add_metric(labels, count)
        yield executors


def _counted(status: monitor_pb2.WatchStatusResponse) -> Counter[tuple[str, str, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    kinds: set[tuple[str, str]] = set()
    for each in status.executors:
        kind = (each.executor.model, _placement(each.executor))
        if len(kinds) >= _MAX_PLACEMENTS and kind not in kinds:
            kind = (_OTHER, _OTHER)
        kinds.add(kind)
        counts[(*kind, "busy" if each.HasField("run") else "idle")] += 1
    return counts


def _placement(executor: executor_pb2.Executor) -> str:
    """What it holds in a word or two, e.g. "bfloat16" or "int8_weight_only tp2"."""
    placement = executor.placement
    types = [placement.quant_type, *(each.quant_type for each in placement.components)]
    words = [name for name in dict.fromkeys(types) if name] or [executor.dtype or "unknown"]
    if executor.tp_size > 1:
        words.append(f"tp{executor.tp_size}")
    return " ".join(words)
