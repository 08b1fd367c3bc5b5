"""What is wrong with alerts and with the queries that scale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from ditplan.v1 import monitor_pb2
from prometheus_client import CollectorRegistry

import executor.agent.telemetry.metrics
import planner.telemetry.metrics
from tests.deploy.rendering import ROOT, Object, of_kind

# Of others: the kubelet, cert-manager, Prometheus itself.
FOREIGN = {
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "certmanager_certificate_expiration_timestamp_seconds",
}
_METRIC = re.compile(r"\b(?:ditplan|process|kubelet|certmanager)_\w+")
_MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"')
_SERIES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
# Given to what is scraped.
_TARGET = {"job", "namespace", "pod", "component", "persistentvolumeclaim", "name"}
_SEVERITIES = ("critical", "warning")


@cache
def metrics() -> dict[str, set[str]]:
    """What planner and executors tell Prometheus: series and their labels."""
    status = monitor_pb2.WatchStatusResponse
    registries = (
        planner.telemetry.metrics.Metrics(lambda: status()).registry,
        executor.agent.telemetry.metrics.Metrics().registry,
    )
    return {series: labels for each in registries for series, labels in _series(each)}


def _series(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    for collector in registry._collector_to_names:
        for family in collector.collect():
            labels = set(getattr(collector, "_labelnames", getattr(family, "_labelnames", ())))
            for suffix in _SERIES.get(family.type, ("",)):
                yield family.name + suffix, labels


def check_queries(objects: list[Object]) -> Iterator[str]:
    """Metrics that are asked for exist, with the labels that are matched."""
    for where, query in _queries(objects):
        for name in _METRIC.findall(query):
            if name not in metrics() and name not in FOREIGN:
                yield f"{where}: there is no {name}"
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", query):
            known = metrics().get(name, set()) | _TARGET
            unknown = set(_MATCHER.findall(matchers)) - known
            if unknown:
                yield f"{where}: {name} has no {unknown}"


def _queries(objects: list[Object]) -> Iterator[tuple[str, str]]:
    for rule in _rules(objects):
        yield rule["alert"], rule["expr"]
    for each in of_kind(objects, "ScaledObject"):
        for trigger in each["spec"]["triggers"]:
            if trigger["type"] == "prometheus":
                yield "ScaledObject", trigger["metadata"]["query"]


def check_alerts(objects: list[Object]) -> Iterator[str]:
    """Whoever is woken by one is told what to do about it."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
    for rule in _rules(objects):
        name, notes = rule["alert"], rule["annotations"]
        page, _, anchor = notes["runbook_url"].partition("#")
        if not page.endswith("/docs/operations.md") or anchor not in anchors:
            yield f"{name}: no runbook at {notes['runbook_url']}"
        if rule["labels"]["severity"] not in _SEVERITIES:
            yield f"{name}: severity {rule['labels']['severity']}"
        if not {"summary", "description"} <= set(notes):
            yield f"{name}: says nothing"


def _rules(objects: list[Object]) -> Iterator[Object]:
    for each in of_kind(objects, "PrometheusRule"):
        for group in each["spec"]["groups"]:
            yield from group["rules"]
