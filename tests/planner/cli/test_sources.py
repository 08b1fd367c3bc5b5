"""``ditplan preview --sources``: which of request, file, environment and default gave a value."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from planner.cli import cli

FLUX = "black-forest-labs/FLUX.1-dev"
CACHE = "cache_config:\n  max_warmup_steps: 5\n"


def preview(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["preview", "-", "--model", FLUX, *arguments], input=CACHE)


def test_every_origin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_CACHE_DIT_ENABLED", "true")
    monkeypatch.setenv("SGLANG_CACHE_DIT_FN", "3")
    lines = preview("--sources", "--steps", "12").stdout.splitlines()
    parts = (line.strip().partition("  ") for line in lines)
    found = {value.strip(): origin for origin, _, value in parts}
    assert found["num_inference_steps: 12"] == "request"
    assert found["height: 1024"] == "default"
    assert found["cache_config.max_warmup_steps: 5"] == "line 2"
    assert found["cache_config.Fn_compute_blocks: 3"] == "SGLANG_CACHE_DIT_FN"
    assert found["cache_config.Bn_compute_blocks: 0"] == "default"


def test_they_are_shown_when_asked_for() -> None:
    assert "sources" not in preview().stdout
    assert preview("--sources", "--format", "json").exit_code == 2
