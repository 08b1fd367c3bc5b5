"""`SGLANG_CACHE_DIT_*` as the commands take them: from the process that a person started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result
from ditplan.v1 import generation_pb2

from planner.cli import cli
from planner.cli.local import LocalServiceError
from planner.config.load import load
from planner.config.schema import CacheConfig

FLUX = "black-forest-labs/FLUX.1-dev"
# Nobody listens there: what is sent is looked at before it would be.
GENERATE = ("generate", "--planner", "localhost:1", "--model", FLUX, "--prompt", "a red circle")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"ENABLED": "true", "FN": "3", "BN": "2"}.items():
        monkeypatch.setenv(f"SGLANG_CACHE_DIT_{name}", value)
    path = tmp_path / "cache.yaml"
    path.write_text("cache_config: {Bn_compute_blocks: 1}\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def test_preview_shows_what_they_fill_in(config: Path) -> None:
    result = run("preview", config, "--model", FLUX, "--format", "json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["columns"][0]["Fn_compute_blocks"] == 3
    assert document["columns"][0]["Bn_compute_blocks"] == 1
    assert [d["field"] for d in document["diagnostics"]] == ["SGLANG_CACHE_DIT_BN"]


def test_compile_explain_and_diff_follow_them(config: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.binpb"
    assert run("compile", config, "--model", FLUX, "-o", plan).exit_code == 0
    assert run("diff", config, plan, "--model", FLUX).exit_code == 0
    explained = run("explain", config, "--model", FLUX, "--step", "7", "--format", "json")
    assert json.loads(explained.stdout)["plan_id"] in run("preview", plan, "--model", FLUX).stdout


class TestGenerate:
    """What is sent is whole: a service has an environment of its own."""

    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[generation_pb2.GenerationSpec]:
        specs: list[generation_pb2.GenerationSpec] = []

        def run(
            _: object, spec: generation_pb2.GenerationSpec, name: str, *, queue: bool
        ) -> NoReturn:
            specs.append(spec)
            raise LocalServiceError("as far as it goes")

        monkeypatch.setattr("planner.cli.generate._run", run)
        return specs

    def test_the_config_says_what_the_variables_add(
        self, config: Path, sent: list[generation_pb2.GenerationSpec]
    ) -> None:
        run(*GENERATE, "--config", config)
        assert load(sent[0].config).cache == CacheConfig(Fn_compute_blocks=3, Bn_compute_blocks=1)

    def test_without_a_config_the_variables_are_one(
        self, config: Path, sent: list[generation_pb2.GenerationSpec]
    ) -> None:
        run(*GENERATE)
        cache = load(sent[0].config).cache
        assert cache is not None
        assert (cache.Fn_compute_blocks, cache.Bn_compute_blocks) == (3, 2)
        assert cache.residual_diff_threshold == 0.24

    def test_a_config_that_nothing_is_added_to_goes_as_it_is(
        self,
        config: Path,
        sent: list[generation_pb2.GenerationSpec],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("SGLANG_CACHE_DIT_FN")
        run(*GENERATE, "--config", config)
        assert sent[0].config == config.read_text()

    def test_a_wrong_variable_is_refused_before_anything_is_sent(
        self,
        config: Path,
        sent: list[generation_pb2.GenerationSpec],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SGLANG_CACHE_DIT_RTD", "0.1")
        result = run(*GENERATE, "--config", config)
        assert (result.exit_code, sent) == (2, [])
        assert "did you mean SGLANG_CACHE_DIT_RDT?" in result.stderr
