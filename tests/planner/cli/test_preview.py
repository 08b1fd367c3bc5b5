"""``ditplan preview`` as its users meet it: its outputs, exit statuses and bad inputs."""

from __future__ import annotations

import errno
import html
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from planner.cli import cli
from planner.compile.compiler import Compilation
from planner.config.document import MAX_CONFIG_BYTES
from planner.diagnostics import Diagnostic, Severity

FLUX = "black-forest-labs/FLUX.1-dev"
CACHE = """\
cache_config:
  max_warmup_steps: 8
  warmup_interval: 2
  max_continuous_cached_steps: 2
  residual_diff_threshold: 0.12
  Fn_compute_blocks: 1
  Bn_compute_blocks: 0
  enable_taylorseer: true
"""
SCM = CACHE + "  steps_computation_mask: fast\n  steps_computation_policy: static\n"
WRONG = CACHE.replace("max_warmup_steps", "max_warmup_step")
DITPLAN = (sys.executable, "-c", "from planner.cli import main; main()")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cache.yaml"
    path.write_text(CACHE)
    return path


def preview(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["preview", *map(str, arguments)], input=stdin)


def document(*arguments: str | Path, stdin: str | None = None) -> tuple[int, dict[str, Any]]:
    result = preview(*arguments, "--format", "json", stdin=stdin)
    found = json.loads(result.stdout)
    check_schema(found)
    assert result.stderr == ""
    return result.exit_code, found


def check_schema(found: dict[str, Any]) -> None:
    """The form that `ditplan preview --format json` promises."""
    assert found.keys() == {
        "plan_id",
        "model",
        "request",
        "steps",
        "computed_steps",
        "estimate",
        "columns",
        "topology",
        "placement",
        "layers",
        "attention_backend",
        "sources",
        "diagnostics",
    }
    failed = any(d["severity"] == "error" for d in found["diagnostics"])
    assert (found["plan_id"] is None) is failed
    assert (found["computed_steps"] is None) is failed
    assert (found["steps"] == []) is failed
    assert [step["index"] for step in found["steps"]] == list(range(len(found["steps"])))
    for step in found["steps"]:
        assert step.keys() == {"index", "ops"}
        for op in step["ops"]:
            always = {"target", "branch", "kind", "reason"}
            assert always <= op.keys() <= always | {"rule", "group", "refresh"}
            assert op["kind"] in {"FULL", "CACHED", "ADAPTIVE"}
            assert op["branch"] in {"cond", "uncond"}
            assert ("rule" in op) is (op["kind"] == "ADAPTIVE")
    for diagnostic in found["diagnostics"]:
        assert diagnostic.keys() == {
            "severity",
            "code",
            "field",
            "line",
            "column",
            "message",
            "hint",
        }
        assert diagnostic["severity"] in {"error", "warning", "hint"}
        assert isinstance(diagnostic["line"], int)


def test_json_holds_the_plan(config: Path) -> None:
    status, found = document(config, "--model", FLUX, "--steps", "28")
    assert status == 0
    assert len(found["plan_id"]) == 64
    kinds = [step["ops"][0]["kind"] for step in found["steps"]]
    assert kinds == ["FULL", "ADAPTIVE"] * 4 + ["ADAPTIVE"] * 20
    assert found["steps"][1]["ops"][0]["rule"]["residual_diff_threshold"] == 0.12
    assert found["computed_steps"] == {"min": 11, "max": 28}
    assert found["columns"][0]["calibrator"]["order"] == 1


def test_standard_input_gives_the_same_plan(config: Path) -> None:
    _, from_file = document(config, "--model", FLUX)
    _, from_stdin = document("-", "--model", FLUX, stdin=CACHE)
    assert from_stdin == from_file


def test_steps_default_to_the_models(config: Path) -> None:
    _, found = document(config, "--model", FLUX)
    assert len(found["steps"]) == 28


def test_a_checkpoint_directory_is_a_model(config: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    (checkpoint / "transformer").mkdir(parents=True)
    (checkpoint / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (checkpoint / "transformer" / "config.json").write_text(
        '{"num_layers": 5, "num_single_layers": 7}'
    )
    status, found = document(config, "--model", checkpoint)
    assert status == 0
    assert found["columns"][0]["num_blocks"] == 12


def test_text_shows_strip_bounds_and_id(config: Path) -> None:
    result = preview(config, "--model", FLUX, "--steps", "12")
    _, found = document(config, "--model", FLUX, "--steps", "12")
    assert result.exit_code == 0
    assert "█ ▒ █ ▒ █ ▒ █ ▒ ▒ ▒ ▒ ▒" in result.stdout
    bounds = found["computed_steps"]
    assert f"{bounds['min']} to {bounds['max']} of 12 steps" in result.stdout
    assert found["plan_id"] in result.stdout


def test_a_static_mask_shows_cached_steps(tmp_path: Path) -> None:
    config = tmp_path / "scm.yaml"
    config.write_text(SCM)
    _, found = document(config, "--model", FLUX, "--steps", "28")
    mask = "1111110100010000100000100001"
    kinds = [step["ops"][0]["kind"] for step in found["steps"]]
    assert kinds == ["FULL" if bit == "1" else "CACHED" for bit in mask]
    text = preview(config, "--model", FLUX, "--steps", "28").stdout
    assert " ".join("█" if bit == "1" else "·" for bit in mask) in text


def test_svg_is_xml_on_standard_output(config: Path) -> None:
    result = preview(config, "--model", FLUX, "--format", "svg")
    assert result.exit_code == 0
    assert ElementTree.fromstring(result.stdout).tag == "{http://www.w3.org/2000/svg}svg"


def test_html_holds_plan_findings_and_config(config: Path) -> None:
    page = preview(config, "--model", FLUX, "--format", "html")
    assert page.exit_code == 0
    assert page.stdout.startswith("<!doctype html>")
    assert "max_warmup_steps: 8" in page.stdout
    failed = preview("-", "--model", FLUX, "--format", "html", stdin=WRONG)
    assert failed.exit_code == 2
    assert "error[unknown-key]" in failed.stdout


@pytest.mark.parametrize("form", ["text", "json", "svg", "html"])
def test_out_takes_what_standard_output_would(config: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "plan"
    arguments = (config, "--model", FLUX, "--format", form)
    assert preview(*arguments, "--out", out).stdout == ""
    assert out.read_text(encoding="utf-8") == preview(*arguments).stdout


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "plan.svg"
    out.write_text("old")
    result = preview("-", "--model", FLUX, "--format", "svg", "--out", out, stdin=WRONG)
    assert (result.exit_code, out.read_text()) == (2, "old")
    assert "error[" in result.stderr
    assert "<stdin>:2:" in result.stderr


def test_an_unwritable_out_is_said(config: Path, tmp_path: Path) -> None:
    result = preview(config, "--model", FLUX, "--out", tmp_path / "missing" / "plan.txt")
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'missing' / 'plan.txt'}: " in result.stderr
    assert not isinstance(result.exception, OSError)


def test_an_error_in_the_config_is_shown_at_its_place(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(WRONG)
    result = preview(config, "--model", FLUX)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"--> {config}:2:3" in result.stderr
    assert "2 |   max_warmup_step: 8" in result.stderr
    status, found = document(config, "--model", FLUX)
    assert status == 2
    assert [(d["line"], d["column"]) for d in found["diagnostics"]] == [(2, 3)]


def bad_config(name: str, directory: Path) -> Path:
    path = directory / "config.yaml"
    if name == "directory":
        path.mkdir()
    elif name == "binary":
        path.write_bytes(bytes(range(256)) * 8)
    elif name == "huge":
        path.write_bytes(b"#" * (4 * MAX_CONFIG_BYTES))
    elif name == "dangling link":
        path.symlink_to(directory / "gone")
    return path


@pytest.mark.parametrize("name", ["missing", "directory", "binary", "huge", "dangling link"])
def test_an_unusable_config_is_a_diagnostic(name: str, tmp_path: Path) -> None:
    config = bad_config(name, tmp_path)
    status, found = document(config, "--model", FLUX)
    assert status == 2
    assert len(found["diagnostics"]) == 1
    text = preview(config, "--model", FLUX)
    assert (text.exit_code, type(text.exception)) == (2, SystemExit)
    assert found["diagnostics"][0]["code"] in text.stderr


def test_a_config_without_permission_is_a_diagnostic(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    # Root may read everything, so the refusal is played.
    monkeypatch.setattr("planner.cli.inputs.open", refuse, raising=False)
    monkeypatch.setattr("os.access", lambda *arguments, **options: False)
    status, found = document(config, "--model", FLUX)
    assert (status, found["diagnostics"][0]["code"]) == (2, "unreadable-config")


def test_a_closed_standard_input_is_a_diagnostic() -> None:
    done = subprocess.run(
        [*DITPLAN, "preview", "-", "--model", FLUX],
        preexec_fn=lambda: os.close(0),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input is closed" in done.stderr


def test_no_more_is_read_than_it_takes_to_refuse() -> None:
    status, found = document("/dev/zero", "--model", FLUX)
    assert (status, found["diagnostics"][0]["code"]) == (2, "config-too-large")


@pytest.mark.parametrize("model", ["FLUX.1-dev", "", "x" * 5000, "\x1b[31m", "."])
def test_an_unknown_model_is_a_diagnostic(config: Path, model: str) -> None:
    status, found = document(config, "--model", model)
    assert status == 2
    assert found["model"] == model
    assert [(d["code"], d["field"]) for d in found["diagnostics"]] == [("unknown-model", "model")]
    assert "\x1b" not in preview(config, "--model", model).output


def test_both_arguments_are_checked_at_once() -> None:
    _, found = document("gone.yaml", "--model", "nobody/nothing")
    assert [d["code"] for d in found["diagnostics"]] == ["unreadable-config", "unknown-model"]


def test_a_size_that_is_not_allowed_comes_with_its_neighbours(config: Path) -> None:
    result = preview(config, "--model", FLUX, "--width=1010")
    assert result.exit_code == 2
    assert "1010 is not allowed" in result.stderr
    assert "nearest: 1008 or 1024" in result.stderr


@pytest.mark.parametrize(
    "option", ["--steps=0", "--steps=-1", "--steps=" + "9" * 30, "--num-gpus=0", "--height=-16"]
)
def test_a_number_out_of_range_is_a_diagnostic(config: Path, option: str) -> None:
    status, found = document(config, "--model", FLUX, option)
    assert status == 2
    assert found["diagnostics"]


@pytest.mark.parametrize("option", ["--steps=many", "--steps=1.5", "--format=png", "--depth=3"])
def test_misuse_is_said_by_the_command_line(config: Path, option: str) -> None:
    result = preview(config, "--model", FLUX, option)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_options_reach_the_request(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def compile_config(text: bytes, model: object, request: Any, *_: object) -> Compilation:
        seen.append((text, request))
        return Compilation(None, None, request, (Diagnostic(Severity.ERROR, "c", "f", "m"),))

    monkeypatch.setattr("planner.cli.inputs.compile_config", compile_config)
    options = ["--steps=9", "--num-gpus=2", "--height=64", "--width=32", "--guidance=4.5"]
    assert preview(config, "--model", FLUX, *options).exit_code == 2
    ((text, request),) = seen
    assert text == CACHE.encode()
    assert (request.num_inference_steps, request.world_size) == (9, 2)
    assert (request.height, request.width, request.guidance_scale) == (64, 32, 4.5)


def test_ascii_where_the_output_is_ascii(config: Path) -> None:
    done = subprocess.run(
        [*DITPLAN, "preview", config, "--model", FLUX],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stdout.isascii()
    assert b"# ? # ? # ? # ?" in done.stdout


@pytest.mark.parametrize("form", ["svg", "html"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_markup_means_the_same_in_every_encoding(config: Path, form: str, encoding: str) -> None:
    done = subprocess.run(
        [*DITPLAN, "preview", config, "--model", FLUX, "--format", form],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    assert "1024 × 1024 pixels" in html.unescape(done.stdout.decode())


def on_a_terminal(config: Path, **environment: str) -> str:
    """What the command writes to a terminal."""
    master, slave = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PYTHONIOENCODING")}
    process = subprocess.Popen(
        [*DITPLAN, "preview", config, "--model", FLUX],
        stdout=slave,
        stderr=slave,
        env={**inherited, "TERM": "xterm", "PYTHONUTF8": "1", **environment},
    )
    os.close(slave)
    written = b""
    try:
        while chunk := os.read(master, 65536):
            written += chunk
    except OSError:
        pass  # Linux ends a terminal whose other side is closed with EIO.
    finally:
        os.close(master)
    assert process.wait(timeout=30) == 0
    return written.decode()


def test_colour_on_a_terminal_unless_declined(config: Path) -> None:
    assert "\x1b[" in on_a_terminal(config)
    assert "\x1b[" in on_a_terminal(config, NO_COLOR="")
    assert "\x1b" not in on_a_terminal(config, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(config, TERM="dumb")
    assert "\x1b" not in preview(config, "--model", FLUX).stdout


def test_a_closed_pipe_is_no_traceback(config: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*DITPLAN, "preview", config, "--model", FLUX, "--steps", "1000", "--format", "json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.parametrize("form", ["text", "json", "svg", "html"])
def test_nothing_heavy_is_imported(config: Path, form: str) -> None:
    program = (
        "import sys\nfrom planner.cli import cli\n"
        f"cli(['preview', {str(config)!r}, '--model', {FLUX!r}, '--format', {form!r}],"
        " standalone_mode=False)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    imported = set(done.stderr.split())
    assert "planner" in imported
    assert not imported & {"torch", "grpc", "numpy", "rich", "diffusers", "sqlite3", "executor"}


def test_help_imports_no_command() -> None:
    program = (
        "import sys\nfrom planner.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print(*[m for m in sys.modules if m.startswith('planner.')], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == ["planner.cli"]
    assert all(command in done.stdout for command in ("preview", "generate", "serve"))


def test_variables_alone_are_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preview("--model", FLUX).stdout.count("no cache is configured") == 1
    monkeypatch.setenv("SGLANG_CACHE_DIT_ENABLED", "true")
    monkeypatch.setenv("SGLANG_CACHE_DIT_WARMUP", "6")
    done = preview("--model", FLUX)
    assert done.exit_code == 0
    assert "0-5   warm-up" in done.stdout


def test_quantized_components_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "quantize.yaml"
    path.write_text(
        "quantize_config:\n"
        "  components_to_quantize:\n"
        "    transformer: {quant_type: int8_weight_only}\n"
        "    text_encoder_2: {quant_type: float8_weight_only, exclude_layers: [shared]}\n"
        "  precision_plan: {attn: int8_weight_only}\n"
    )
    shown = " ".join(preview(path, "--model", FLUX).stdout.split())
    assert "text_encoder_2: quant_type float8_weight_only, exclude_layers shared" in shown
    assert "transformer: quant_type int8_weight_only" in shown
    assert "precision_plan: layers with 'attn' are int8_weight_only" in shown


def test_bytes_are_in_the_dtype_that_is_asked_for(config: Path) -> None:
    _, half = document(config, "--model", FLUX)
    _, single = document(config, "--model", FLUX, "--dtype", "float32")
    assert (half["estimate"]["dtype"], single["estimate"]["dtype"]) == ("bfloat16", "float32")
    assert single["estimate"]["cache_bytes"] == 2 * half["estimate"]["cache_bytes"] > 0
    assert single["plan_id"] == half["plan_id"]
    assert "per rank in float32" in preview(config, "--model", FLUX, "--dtype", "float32").stdout
    status, wrong = document(config, "--model", FLUX, "--dtype", "fp32")
    assert status == 2
    assert "allowed: bfloat16, float16, float32" in wrong["diagnostics"][0]["message"]
