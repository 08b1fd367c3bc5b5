"""``ditplan generate`` without a service: everything is brought up for the one run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.e2e.processes import ENVIRONMENT, START_SECONDS, ditplan, eventually

ARGUMENTS = ("--prompt", "a red circle", "--seed", "7", "--steps", "10", "--height", "32")


def test_a_record_is_replayed_bit_for_bit(
    tmp_path: Path, checkpoint: Path, cache_yaml: Path
) -> None:
    def files(name: str) -> tuple[Path, Path, Path]:
        return tuple(tmp_path / f"{name}.{end}" for end in ("png", "safetensors", "json"))  # type: ignore[return-value]

    first, latents, record = files("first")
    config = tmp_path / "config.yaml"
    config.write_text(f"{cache_yaml.read_text()}\nattention_backend: _native_math\n")
    done = ditplan(
        *("generate", "--model", checkpoint, "--config", config, *ARGUMENTS),
        *("--out", first, "--save-latents", latents, "--record", record),
    )
    assert "starting a planner and an executor" in done.stderr
    assert "residual_diff_threshold 0.5" in done.stdout
    assert Image.open(first).size == (32, 32)
    document = json.loads(record.read_text())
    assert "attention_backend _native_math" in done.stdout
    assert document["program"]["attention_backend"] == "_native_math"
    kinds = [step["ops"][0]["kind"] for step in document["steps"]]
    assert kinds[:4] == ["FULL"] * 4
    assert set(kinds) == {"FULL", "CACHED"}
    assert document["plan_id"] in done.stdout
    assert document["computed_steps"] == kinds.count("FULL")

    again, latents_again, record_again = files("again")
    ditplan(
        *("generate", "--replay", record),
        *("--out", again, "--save-latents", latents_again, "--record", record_again),
    )
    stored, replayed = load_file(latents), load_file(latents_again)
    assert list(stored) == ["latents"]
    assert stored["latents"].dtype is torch.float32
    assert torch.equal(stored["latents"], replayed["latents"])
    assert first.read_bytes() == again.read_bytes()
    replayed_kinds = [s["ops"][0]["kind"] for s in json.loads(record_again.read_text())["steps"]]
    assert replayed_kinds == kinds


def test_a_picture_is_kept_as_webp_by_the_name_of_its_file(
    tmp_path: Path, checkpoint: Path
) -> None:
    record = tmp_path / "record.json"
    webp, png = tmp_path / "a.webp", tmp_path / "b.png"
    ditplan("generate", "--model", checkpoint, *ARGUMENTS, "--out", webp, "--record", record)
    done = ditplan("generate", "--replay", record, "--out", png)
    assert "warning" not in done.stderr
    kept = Image.open(webp)
    assert (kept.format, Image.open(png).format) == ("WEBP", "PNG")
    assert kept.convert("RGB").tobytes() == Image.open(png).convert("RGB").tobytes()
    [artifact] = json.loads(record.read_text())["artifacts"]
    assert (artifact["name"], artifact["media_type"]) == ("image.webp", "image/webp")
    assert artifact["sha256"] == hashlib.sha256(webp.read_bytes()).hexdigest()


def test_the_replayed_ops_are_the_ones_in_the_file(tmp_path: Path, checkpoint: Path) -> None:
    record = tmp_path / "record.json"
    ditplan(
        *("generate", "--model", checkpoint, *ARGUMENTS, "--out", tmp_path / "a.png"),
        *("--record", record),
    )
    document = json.loads(record.read_text())
    document["program"]["columns"][0]["fn_compute_blocks"] = 1
    document["program"]["columns"][0]["calibrator"] = {"cache_type": "CACHE_TYPE_RESIDUAL"}
    document["steps"][5]["ops"][0]["kind"] = "CACHED"
    record.write_text(json.dumps(document))
    edited = tmp_path / "edited.json"
    ditplan("generate", "--replay", record, "--out", tmp_path / "b.png", "--record", edited)
    kinds = [step["ops"][0]["kind"] for step in json.loads(edited.read_text())["steps"]]
    assert kinds == ["FULL"] * 5 + ["CACHED"] + ["FULL"] * 4
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_what_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, checkpoint: Path
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("cache_config:\n  Fn_compute_block: 1\n")
    done = ditplan(
        *("generate", "--model", checkpoint, "--config", config, *ARGUMENTS), check=False
    )
    assert done.returncode == 2
    assert "did you mean Fn_compute_blocks?" in done.stderr
    assert f"{config}:2:3" in done.stderr
    assert "starting" not in done.stderr

    for arguments, message in (
        (("--model", tmp_path / "nothing", "--prompt", "x"), "neither a checkpoint directory nor"),
        (("--model", checkpoint), "--prompt"),
        (("--model", checkpoint, "--prompt", "x", "--num-gpus", "2"), "how they share the work"),
        (("--replay", config), "wrong.yaml"),
        (("--model", checkpoint, "--prompt", "x", "--out", tmp_path / "no" / "x.png"), "not exist"),
    ):
        done = ditplan("generate", *arguments, check=False)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_what_can_be_written_is_written(tmp_path: Path, checkpoint: Path) -> None:
    """Also where the picture cannot be, and where no socket fits below TMPDIR."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    record, latents = tmp_path / "record.json", tmp_path / "latents.safetensors"
    done = ditplan(
        *("generate", "--model", checkpoint, *ARGUMENTS, "--out", "/dev/full"),
        *("--record", record, "--save-latents", latents),
        check=False,
        environment={"TMPDIR": str(long)},
    )
    assert done.returncode == 1
    assert done.stderr.endswith("error: cannot write /dev/full: No space left on device\n")
    assert json.loads(record.read_text())["computed_steps"] == 10
    assert list(load_file(latents)) == ["latents"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind(
    tmp_path: Path, short_path: Path, checkpoint: Path, end: signal.Signals
) -> None:
    """Planner and executor go with the command that brought them up, however it ends."""

    def left_over() -> list[bytes]:
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(process.read_bytes())
        return [line for line in lines if bytes(short_path) in line and b"--listen" in line]

    command = ["generate", "--model", str(checkpoint), "--prompt", "x", "--steps", "1000"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "planner", *command, "--out", str(tmp_path / "x.png")],
            env={**ENVIRONMENT, "TMPDIR": str(short_path)},
            stdout=log,
            stderr=log,
        )
    # The plan is shown when the run begins.
    eventually(lambda: b"plan id" in (tmp_path / "log").read_bytes(), START_SECONDS)
    assert left_over()
    process.send_signal(end)
    assert process.wait(30) != 0
    eventually(lambda: not left_over())
    assert end is signal.SIGKILL or not list(short_path.glob("ditplan-*"))
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def test_a_corrupt_checkpoint_is_named(tmp_path: Path, checkpoint: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = ditplan("generate", "--model", broken, *ARGUMENTS, check=False)
    assert done.returncode == 1
    assert str(weights) in done.stderr
    assert "Traceback" not in done.stderr
