"""The metrics that are looked up when Prometheus asks, not counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from ditplan.v1 import monitor_pb2
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from planner.render.placements import placement_label

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
        executors = GaugeMetricFamily(
            "ditplan_planner_executors",
            "Connected executors, by what they hold and whether they run something.",
            labels=("model", "placement", "state"),
        )
        for labels, count in _counted(status).items():
            executors.add_metric(labels, count)
        yield executors
        queued = GaugeMetricFamily(
            "ditplan_planner_queued_predicted_seconds",
            "What the queued generations will take of one executor.",
            labels=("model",),
        )
        running = GaugeMetricFamily(
            "ditplan_planner_running_predicted_seconds",
            "What is left of the leased generations.",
            labels=("model",),
        )
        for work in status.work:
            queued.add_metric((work.model,), work.queued_seconds)
            running.add_metric((work.model,), work.running_seconds)
        yield queued
        yield running


def _counted(status: monitor_pb2.WatchStatusResponse) -> Counter[tuple[str, str, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    kinds: set[tuple[str, str]] = set()
    for each in status.executors:
        kind = (each.executor.model, placement_label(each.executor))
        if len(kinds) >= _MAX_PLACEMENTS and kind not in kinds:
            kind = (_OTHER, _OTHER)
        kinds.add(kind)
        counts[(*kind, "busy" if each.HasField("run") else "idle")] += 1
    return counts
