"""What Prometheus reads, and the rules that `promtool check metrics` has for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"[a-z][a-z0-9_]*")
# Of other units than the base units, and of words that belong in no name.
UNLIKED = re.compile(
    r"_(milliseconds|ms|microseconds|minutes|hours|days|kilobytes|megabytes|kb|mb|percent"
    r"|counter|gauge|histogram|summary)(_|$)"
)


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        return str(response.read().decode())


def value(text: str, sample: str, **labels: str) -> float | None:
    """Of a sample with all of these labels."""
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name == sample and labels.items() <= found.labels.items():
                return float(found.value)
    return None


def series(families: Iterable[Metric]) -> set[str]:
    """The names that a query may use."""
    names = set()
    for family in families:
        if family.type == "histogram":
            names |= {f"{family.name}_{end}" for end in ("bucket", "count", "sum")}
        else:
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


def faults(text: str) -> list[str]:
    """What is against the rules; by promtool as well where it is installed."""
    found = list(_faults(text))
    promtool = shutil.which("promtool")
    if promtool is not None:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        if checked.returncode:
            found.append(checked.stdout + checked.stderr)
    return found


def _faults(text: str) -> Iterator[str]:
    types: dict[str, str] = {}
    helps = set()
    for line in text.splitlines():
        if line.startswith("# HELP"):
            name, _, words = line[7:].partition(" ")
            helps.add(name)
            if not words:
                yield f"{name} has no help"
        elif line.startswith("# TYPE"):
            name, kind = line[7:].split()
            types[name] = kind
            if name not in helps:
                yield f"{name} has no help"
            if NAME.fullmatch(name) is None or UNLIKED.search(name):
                yield f"{name} is no good name"
            if (kind == "counter") != name.endswith("_total"):
                yield f"{name} is a {kind}"
        elif line:
            name = re.split(r"[{ ]", line, maxsplit=1)[0]
            if name not in types and re.sub(r"_(bucket|count|sum)$", "", name) not in types:
                yield f"{name} has no type"
