"""``ditplan diff``, ``ditplan compile``: plans as files, and what two of them do differently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2

from planner.cli import cli

FLUX = "black-forest-labs/FLUX.1-dev"
CACHE = """\
cache_config:
  max_warmup_steps: 4
  residual_diff_threshold: 0.12
  Fn_compute_blocks: 1
"""


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def a(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(CACHE)
    return path


@pytest.fixture
def b(tmp_path: Path) -> Path:
    path = tmp_path / "b.yaml"
    path.write_text(
        CACHE.replace("max_warmup_steps: 4", "max_warmup_steps: 6") + "  cfg_compute_first: false\n"
    )
    return path


def test_a_difference_names_steps_and_the_keys_that_cause_it(a: Path, b: Path) -> None:
    done = _run("diff", a, b, "--model", FLUX, "--steps", 10, "--format", "json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    (change,) = document["steps"]
    assert change["steps"] == [4, 5]
    assert change["before"] == {"kind": "ADAPTIVE", "reason": "DBCACHE"}
    assert change["after"] == {"kind": "FULL", "reason": "WARMUP"}
    assert document["settings"] == []
    assert {key["key"]: key["changes_plan"] for key in document["keys"]} == {
        "cache_config.max_warmup_steps": True,
        "cache_config.cfg_compute_first": False,
    }


def test_a_config_from_standard_input_is_compared_whole(a: Path, b: Path) -> None:
    arguments = ["diff", "-", str(b), "--model", FLUX, "--steps", "10", "--format", "json"]
    piped = json.loads(CliRunner().invoke(cli, arguments, input=a.read_text()).stdout)
    named = json.loads(_run("diff", a, *arguments[2:]).stdout)
    assert piped["keys"] == named["keys"]


def test_text_shows_both_strips(a: Path, b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(a.parent)
    done = _run("diff", a.name, b.name, "--model", FLUX, "--steps", 10)
    assert done.exit_code == 1
    assert done.stdout.count("transformer") == 2
    assert "4-5: adaptive (the residual diff decides at run time)" in done.stdout
    assert "cache_config.max_warmup_steps: 4" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_equal_spellings_are_the_same_plan(a: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(
        '{"cache_config": {"Fn_compute_blocks": 1, "Bn_compute_blocks": 0, '
        '"residual_diff_threshold": 0.12, "max_warmup_steps": 4}}'
    )
    done = _run("diff", a, other, "--model", FLUX)
    assert done.exit_code == 0
    assert "are the same plan" in done.stdout


def test_other_settings_are_told_apart(a: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(CACHE + "  enable_taylorseer: true\nattention_backend: flash\n")
    done = _run("diff", a, other, "--model", FLUX, "--format", "json")
    settings = {s["name"]: (s["before"], s["after"]) for s in json.loads(done.stdout)["settings"]}
    assert settings == {
        "calibrator": (None, "TaylorSeer"),
        "calibrator.order": (None, 1),
        "attention_backend": (None, "flash"),
    }


def test_a_compiled_plan_is_the_previewed_one(a: Path, b: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.binpb"
    done = _run("compile", a, "--model", FLUX, "--steps", 12, "-o", file)
    assert done.exit_code == 0, done.output
    plan = plan_pb2.Plan.FromString(file.read_bytes())
    assert plan.plan_id == plan_id(plan.program)
    shown = json.loads(
        _run("preview", a, "--model", FLUX, "--steps", 12, "--format", "json").stdout
    )
    assert plan.plan_id == shown["plan_id"]
    assert _run("diff", a, file, "--model", FLUX, "--steps", 12).exit_code == 0
    assert _run("diff", file, b, "--model", FLUX, "--steps", 12).exit_code == 1


def _previewed(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    done = _run("preview", *arguments, "--format", "json")
    return done.exit_code, json.loads(done.stdout)


def test_a_plan_file_is_previewed_as_its_config(a: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.binpb"
    _run("compile", a, "--model", FLUX, "--steps", 12, "-o", file)
    (status, stored), (_, compiled) = (
        _previewed(file, "--model", FLUX),
        _previewed(a, "--model", FLUX, "--steps", 12),
    )
    assert (status, stored.pop("sources")) == (0, [])
    assert compiled.pop("sources")[0]["key"] == "num_inference_steps"
    assert stored == compiled


def test_a_plan_that_cannot_be_used_is_a_diagnostic_of_the_preview(a: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.binpb"
    _run("compile", a, "--model", FLUX, "--steps", 12, "-o", file)

    def code(*arguments: str | Path) -> str:
        status, found = _previewed(*arguments)
        assert (status, found["plan_id"]) == (2, None)
        (diagnostic,) = found["diagnostics"]
        return str(diagnostic["code"])

    assert code(file, "--model", "Qwen/Qwen-Image") == "unusable-plan"
    assert code(file, "--model", "nobody/nothing") == "unknown-model"
    assert code(file, "--model", FLUX, "--steps", "13") == "program-steps"
    assert code(tmp_path / "gone.binpb", "--model", FLUX) == "unusable-plan"
    file.write_bytes(file.read_bytes()[:-9])
    assert code(file, "--model", FLUX) == "unusable-plan"


def test_errors_write_nothing(tmp_path: Path, a: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("cache_config:\n  Fn_compute_blocks: 0\n")
    file = tmp_path / "plan.binpb"
    done = _run("compile", wrong, "--model", FLUX, "-o", file)
    assert done.exit_code == 2
    assert "wrong.yaml:2:22" in done.stderr
    assert not file.exists()
    assert _run("diff", a, wrong, "--model", FLUX).exit_code == 2
    assert _run("diff", a, tmp_path / "none.yaml", "--model", FLUX).exit_code == 2


def test_a_damaged_plan_file_is_refused(a: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.binpb"
    _run("compile", a, "--model", FLUX, "-o", file)
    plan = plan_pb2.Plan.FromString(file.read_bytes())
    plan.program.columns[0].fn_compute_blocks = 2
    file.write_bytes(plan.SerializeToString())
    done = _run("diff", a, file, "--model", FLUX)
    assert done.exit_code == 2
    assert "damaged or edited" in done.stderr
    file.write_bytes(b"\xff\xff\xff")
    assert "holds no plan" in _run("diff", a, file, "--model", FLUX).stderr


def test_a_plan_file_is_refused_in_one_line(a: Path, tmp_path: Path) -> None:
    file, gone = tmp_path / "plan.binpb", tmp_path / "gone.binpb"
    file.write_bytes(b"\x0a\x40 no plan")

    def said(*arguments: str | Path) -> str:
        done = _run(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        return done.stderr

    assert said("diff", a, file, "--model", FLUX) == f"error: {file}: holds no plan\n"
    assert said("diff", a, gone, "--model", FLUX) == f"error: {gone}: No such file or directory\n"
    assert said("generate", "--plan", file, "--model", FLUX, "--prompt", "x") == (
        f"error: {file}: holds no plan\n"
    )
    refused = said("compile", file, "--model", FLUX, "-o", gone)
    assert "is a plan, not a config" in " ".join(refused.split())


def test_a_plan_for_another_model_is_refused_before_anything_starts(
    a: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run("compile", a, "--model", FLUX, "-o", "plan.binpb")
    done = _run("generate", "--plan", "plan.binpb", "--model", "Qwen/Qwen-Image", "--prompt", "x")
    assert done.exit_code == 2
    assert done.stderr == "error: the plan: model: the program is for another model architecture\n"


def test_a_plan_goes_to_standard_output(a: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.binpb"
    _run("compile", a, "--model", FLUX, "-o", file)
    piped = _run("compile", a, "--model", FLUX, "-o", "-")
    assert piped.stdout_bytes == file.read_bytes()
    assert "-: plan " in piped.stderr


def test_standard_input_is_one_of_the_two() -> None:
    done = _run("diff", "-", "-", "--model", FLUX)
    assert (done.exit_code, "only one of A and B" in done.stderr) == (2, True)


def test_a_change_names_the_columns_it_is_about(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(CACHE)
    b.write_text(CACHE + "  secondary: {Fn_compute_blocks: 2, max_warmup_steps: 1}\n")
    arguments = ["--model", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "--steps", "12", "--guidance", "4"]
    text = _run("diff", a, b, *arguments).stdout
    assert "  transformer_2: 5-7: full (warm-up) → adaptive" in text
    assert "  transformer_2: Fn_compute_blocks: 1 → 2\n" in text
    changes = json.loads(_run("diff", a, b, *arguments, "--format", "json").stdout)["steps"]
    assert [(c["target"], c["branch"]) for each in changes for c in each["columns"]] == [
        ("transformer_2", "cond"),
        ("transformer_2", "uncond"),
    ]


def test_a_key_that_is_wrong_by_itself_is_called_so(tmp_path: Path) -> None:
    # The flat form, against sections.
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text("Fn_compute_blocks: 1\nenable_foca: true\n")
    b.write_text("cache_config: {Fn_compute_blocks: 1, enable_taylorseer: true}\n")
    done = _run("diff", a, b, "--model", FLUX, "--format", "json")
    assert {key["key"]: key["changes_plan"] for key in json.loads(done.stdout)["keys"]} == {
        "cache_config.enable_foca": True,
        "cache_config.enable_taylorseer": None,
    }
    text = _run("diff", a, b, "--model", FLUX).stdout
    assert "calibrator: FoCa → TaylorSeer" in text
    assert "enable_taylorseer: not given → true (alone is an error)" in text
