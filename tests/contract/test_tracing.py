"""Traces without the packages for them."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
sys.meta_path.insert(0, type("Missing", (), {"find_spec": staticmethod(
    lambda name, *_: exec("raise ImportError(name)") if name.startswith("opentelemetry") else None
)}))
from ditplan.common.tracing import NoTracesError, tracing
assert tracing("service", {}) is None
try:
    tracing("service", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
except NoTracesError as error:
    print(error)
"""


def test_a_missing_extra_is_named() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True
    )
    assert "pip install 'ditplan[otel]'" in done.stdout
