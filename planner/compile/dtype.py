"""Dtypes of transformers, as executors name them."""

from __future__ import annotations

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}

ASSUMED = "bfloat16"
"""Where nothing is known of the executor that will run a plan."""

ALLOWED = ", ".join(BYTES)
