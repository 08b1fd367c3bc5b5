"""Measures one part; apart from `__main__`, whose functions no spawned process finds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib import import_module

from tests.bench.machine import machine, versions
from tests.bench.report import Findings, Part


def measure(name: str, look: bool) -> Part:
    """By the ``measure`` of its module."""
    began = time.monotonic()
    findings: Findings = import_module(f"tests.bench.{name}").measure(look=look)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return Part(findings, machine(), versions(), date, time.monotonic() - began)
