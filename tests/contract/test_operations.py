"""The dashboard and the manual against the metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ditplan.v1 import monitor_pb2
from prometheus_client import CollectorRegistry, Metric

from executor.agent.telemetry.metrics import Metrics as ExecutorMetrics
from planner.errors import ErrorReason
from planner.telemetry.metrics import Metrics as PlannerMetrics
from tests.planner.service.prometheus import series

REPOSITORY = Path(__file__).parents[2]
DASHBOARD = json.loads((REPOSITORY / "deploy/dashboards/ditplan.json").read_text())
MANUAL = (REPOSITORY / "docs/operations.md").read_text()
NAME = re.compile(r"\b(?:ditplan|process)_[a-z0-9_]+")
VARIABLES = {"$__rate_interval": "5m", "$planner": ".*", "$executor": ".*"}


def _registries() -> list[CollectorRegistry]:
    planner = PlannerMetrics(lambda: monitor_pb2.WatchStatusResponse(version="ditplan 1"))
    return [planner.registry, ExecutorMetrics().registry]


def _families() -> list[Metric]:
    return [family for registry in _registries() for family in registry.collect()]


def _declared() -> dict[str, set[str]]:
    """The labels of every metric, whether it has samples yet or not."""
    found = {}
    for registry in _registries():
        for collector in registry._collector_to_names:
            for family in collector.collect():
                holder = family if hasattr(family, "_labelnames") else collector
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found[name] = set(getattr(holder, "_labelnames", ()))
    return found


def _queries() -> list[str]:
    panels = [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
    ]
    variables = [v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return panels + variables


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    known = series(_families())
    asked = {name for query in _queries() for name in NAME.findall(query)}
    assert len(asked) > 25
    assert asked - known == set()


def _labels(families: list[Metric]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those that the manual gives a metric."""
    names = {family.name for family in families} | series(families)
    for line in MANUAL.splitlines():
        row = re.match(r"\| `(ditplan_[a-z_]+)` \| ([a-z]+) \| ([a-z, ]*)\|", line)
        if row is not None:
            assert row[1] in names
            yield row[1], tuple(word.strip() for word in row[3].split(",") if word.strip())


def _targets() -> Iterator[tuple[str, str]]:
    """Every query with its legend."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target.get("legendFormat", "")


def _faults(query: str, legend: str) -> set[str]:
    """The labels in a query and its legend that are none of its metrics'."""
    declared = _declared()
    found, everywhere = set(), {"instance", "job"}

    def labels(name: str) -> set[str]:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        own = declared[name] if name in declared else declared[family]
        return own | everywhere | ({"le"} if name.endswith("_bucket") else set())

    for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", query):
        found |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - labels(name)
    allowed = set.intersection(*(labels(name) for name in NAME.findall(query)))
    groups = re.findall(r"by \(([^)]*)\)", query)
    for group in groups:
        grouped = {word.strip() for word in group.split(",")}
        found |= grouped - allowed
        allowed = allowed & grouped
    if not groups and re.match(r"(sum|max|count|histogram_quantile)\b", query):
        allowed = set()
    return found | (set(re.findall(r"\{\{(\w+)\}\}", legend)) - allowed)


def test_queries_and_legends_name_labels_that_their_metrics_have() -> None:
    faults = {query: _faults(query, legend) for query, legend in _targets()}
    assert len(faults) > 10
    assert {query: found for query, found in faults.items() if found} == {}


@pytest.mark.parametrize(
    ("query", "legend", "wrong"),
    [
        ('sum by (model) (rate(ditplan_planner_leases_lost_total{instance="a"}[5m]))', "", "model"),
        ('ditplan_planner_queued_generations{state="failed"}', "", "state"),
        ("sum by (method) (ditplan_planner_open_rpcs)", "{{service}}", "service"),
        ("sum(ditplan_planner_executors)", "{{model}}", "model"),
        ("ditplan_executor_running", "{{kind}}", "kind"),
    ],
)
def test_a_label_that_is_none_would_be_found(query: str, legend: str, wrong: str) -> None:
    assert _faults(query, legend) == {wrong}


def test_the_manual_lists_every_metric_with_its_kind_and_labels() -> None:
    listed, declared = dict(_labels(_families())), _declared()
    for family in _families():
        if not family.name.startswith("ditplan_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"| `{name}` | {family.type} |" in MANUAL
        assert set(listed[name]) == declared[name]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = []
    for query in _queries():
        if query.startswith("label_values"):
            continue
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        rules.append({"record": f"query:{len(rules)}", "expr": query})
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(rules)} rules found" in checked.stdout


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


EVENT = re.compile(r"\.(?:info|warning|error|exception)\(\s*f?\"([a-z_]+)")


def test_the_manual_lists_every_event_that_is_logged() -> None:
    logged = {
        event
        for package in ("planner", "executor")
        for path in (REPOSITORY / package).rglob("*.py")
        for event in EVENT.findall(path.read_text())
    }
    assert {"lease_granted", "run_started"} <= logged
    listed = set(re.findall(r"`([a-z_]+)`", MANUAL))
    unlisted = {e for e in logged if not any(name.startswith(e) for name in listed)}
    assert unlisted == set()


@pytest.mark.parametrize("reason", ErrorReason)
def test_the_manual_says_what_every_reason_looks_like(reason: ErrorReason) -> None:
    head, failures = MANUAL.split("## Failures and what they look like\n")
    assert "## Upgrade\n" in head
    assert f"`{reason.value}`" in failures.split("\n## ")[0]
