"""The parts of the bench, each in a process of its own."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context

from executor.placement.quiet import silence_libraries
from tests.bench.machine import machine, versions
from tests.bench.report import Findings, Part

PARTS = (
    "headline",
    "engine",
    "planner",
    "service",
    "parallel",
    "growth",
    "placement",
    "prediction",
    "gpu",
)


def usual() -> tuple[str, ...]:
    """All parts that this machine can measure."""
    import torch

    return PARTS if torch.cuda.is_available() else PARTS[:-1]


def measured(name: str, *, look: bool) -> Part:
    """Raises whatever the part raises.

    What one part imports, patches and holds is not the next one's: each has its process.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measure, name, look).result()


def _measure(name: str, look: bool) -> Part:
    # Before any part imports them.
    silence_libraries()
    began = time.monotonic()
    findings: Findings = import_module(f"tests.bench.{name}").measure(look=look)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return Part(findings, machine(), versions(), date, time.monotonic() - began)
