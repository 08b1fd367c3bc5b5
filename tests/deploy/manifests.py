"""`make manifests`: what tools say of every rendering, and of the rules of alerts.

Each tool is shown something broken first and has to say so.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.deploy.rendering import KUBERNETES, RENDERINGS, ROOT, Object, of_kind, render
from tests.deploy.schema_check import as_pods, faults

_BIN = Path(sys.executable).parent
_ALERTS = ROOT / "deploy/alerts/ditplan.yaml"
_ALERT_TESTS = Path(__file__).parent / "alerts.yaml"
# Kubernetes's own objects of the overlay that promises the oldest.
_OLDEST = ("local", "1.30")


def _run(*command: str | Path) -> str:
    """What a tool complains of; "" where it does not."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return "" if not ran.returncode else ran.stdout + ran.stderr


def _lint(*paths: Path) -> str:
    return _run(_BIN / "yamllint", "--strict", "-c", KUBERNETES / ".yamllint.yaml", *paths)


def _policies(objects: list[Object], where: Path) -> str:
    """What checkov says of the objects, groups by their pods."""
    file = where / "objects.yaml"
    file.write_text(yaml.safe_dump_all([*objects, *as_pods(objects)]))
    config = KUBERNETES / ".checkov.yaml"
    flags = ("--framework", "kubernetes", "--skip-download", "--compact", "--quiet")
    return _run(_BIN / "checkov", "--file", file, "--config-file", config, *flags)


def _rules(spec: Object, where: Path) -> str:
    """What promtool says of rules, alone and against their tests."""
    rules, tests = where / "rules.yaml", where / "alerts.yaml"
    rules.write_text(yaml.safe_dump(spec))
    tests.write_text(_ALERT_TESTS.read_text())
    return _run("promtool", "check", "rules", rules) or _run("promtool", "test", "rules", tests)


def _untested(spec: Object) -> set[str]:
    """Alerts that wake someone at once, and have no test."""
    tested = {
        case["alertname"]
        for test in yaml.safe_load(_ALERT_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    rules = [rule for group in spec["groups"] for rule in group["rules"]]
    critical = {rule["alert"] for rule in rules if rule["labels"]["severity"] == "critical"}
    return critical - tested


def _blind(where: Path) -> Iterator[str]:
    """Tools that let something broken pass."""
    broken = where / "broken.yaml"
    broken.write_text("a: 1\na: 2\n")
    if not _lint(broken):
        yield "yamllint"
    objects = render(RENDERINGS["multi-node"])
    misspelt = {
        "Deployment": ("spec", "replica"),
        "LeaderWorkerSet": ("spec", "replica"),
        "ScaledObject": ("spec", "maxReplicas"),
        "Certificate": ("spec", "dnsName"),
        "PodMonitor": ("spec", "podMetricsEndpoint"),
        "NetworkPolicy": ("spec", "policyType"),
    }
    for kind, (at, field) in misspelt.items():
        each = copy.deepcopy(of_kind(objects, kind)[0])
        each[at][field] = 1
        if not list(faults([each])):
            yield f"schema of {kind}"
    groups = copy.deepcopy(of_kind(objects, "LeaderWorkerSet"))
    groups[0]["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]["container"] = []
    if not list(faults(groups)):
        yield "schema of pods of groups"
    pod = copy.deepcopy(as_pods(objects))
    pod[0]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    if not _policies(pod, where):
        yield "checkov"
    spec = yaml.safe_load(_ALERTS.read_text())["spec"]
    (rule,) = (r for g in spec["groups"] for r in g["rules"] if r["alert"] == "DitplanNoExecutors")
    rule["expr"] = "sum(ditplan_planner_executors) == 0"
    if not _rules(spec, where):
        yield "promtool"


def _complaints(where: Path) -> Iterator[tuple[str, str]]:
    for tool in _blind(where):
        yield tool, "sees nothing wrong in what is broken"
    yield "yamllint", _lint(KUBERNETES, _ALERTS.parent, *Path(__file__).parent.glob("**/*.yaml"))
    for name, path in RENDERINGS.items():
        objects = render(path)
        yield f"{name}: schemas", "\n".join(faults(objects))
        yield f"{name}: checkov", _policies(objects, where)
    name, version = _OLDEST
    yield f"{name} on {version}", "\n".join(faults(render(RENDERINGS[name]), (version,)))
    spec = yaml.safe_load(_ALERTS.read_text())["spec"]
    yield "promtool", _rules(spec, where)
    yield "alerts without a test", ", ".join(_untested(spec))


def main() -> None:
    for tool in ("kubectl", "promtool"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on the path")
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        for name, complaint in _complaints(Path(directory)):
            print(f"{'FAILED' if complaint else 'ok    '}  {name}", flush=True)
            if complaint:
                failed = True
                print(complaint)
    sys.exit(failed)


if __name__ == "__main__":
    main()
