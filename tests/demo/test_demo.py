"""``make demo`` comes to its end: planner, executor, pictures, comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"


@pytest.mark.timeout(300)
def test_the_demo_draws_its_sheet_and_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO, "--out", tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 of 28" in done.stdout
    assert "12 of 12" in done.stdout
    assert Image.open(tmp_path / "contact-sheet.png").width > 300
