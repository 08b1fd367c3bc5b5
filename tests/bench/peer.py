"""Cache-DiT, where it is installed: `pip install -e .[bench]`."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

ABSENT = "cache-dit is not installed, so its rows are left out (pip install -e .[bench])."


def peer() -> str:
    """Its name with its version; empty where it is missing. It logs errors alone from then on."""
    # Read when it is imported.
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    try:
        return f"cache-dit {version('cache-dit')}"
    except PackageNotFoundError:
        return ""
