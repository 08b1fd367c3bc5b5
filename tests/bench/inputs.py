"""What is measured: the demo model, the example's config, and a checkpoint by its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "deploy" / "demo" / "model"
CONFIG = ROOT / "deploy" / "examples" / "cache.yaml"
FLUX = "black-forest-labs/FLUX.1-dev"
