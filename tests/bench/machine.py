"""The machine at hand, in words."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "diffusers", "torchao", "grpcio", "cache-dit")


def machine() -> str:
    """Processor, cores that this process may use, memory, and a GPU where there is one (Linux)."""
    import torch

    told = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"model name\s*:\s*(.+)", told) or [platform.machine()]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [names[0], f"{len(os.sched_getaffinity(0))} cores", f"{gib:.0f} GiB"]
    if torch.cuda.is_available():
        found.append(torch.cuda.get_device_name())
    return ", ".join(found)


def versions() -> str:
    """Of Python and of what is measured."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)
