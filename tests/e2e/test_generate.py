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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.e2e.conftest import CACHE_YAML
from tests.e2e.processes import ENVIRONMENT, START_SECONDS, ditplan, eventually

ARGUMENTS = ("--prompt", "a red circle", "--seed", "7", "--steps", "10", "--height", "32")


@dataclass(frozen=True)
class Drawn:
    """A command that drew, and the files that it left."""

    done: subprocess.CompletedProcess[str]
    picture: Path
    latents: Path
    record: Path

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.record.read_text())
        return document

    @property
    def kinds(self) -> list[str]:
        return [step["ops"][0]["kind"] for step in self.document["steps"]]

    @property
    def pixels(self) -> bytes:
        return Image.open(self.picture).convert("RGB").tobytes()


def _draw(directory: Path, picture: str, *arguments: str | Path) -> Drawn:
    out, latents, record = (directory / name for name in (picture, "l.safetensors", "r.json"))
    kept = ("--out", out, "--save-latents", latents, "--record", record)
    return Drawn(ditplan("generate", *arguments, *kept), out, latents, record)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Drawn:
    directory = tmp_path_factory.mktemp("drawn")
    config = directory / "config.yaml"
    config.write_text(f"{CACHE_YAML}\nattention_backend: _native_math\n")
    return _draw(directory, "x.webp", "--model", checkpoint, "--config", config, *ARGUMENTS)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn) -> Drawn:
    return _draw(tmp_path_factory.mktemp("replayed"), "x.png", "--replay", drawn.record)


def test_the_command_says_and_records_what_it_did(drawn: Drawn) -> None:
    done, document, kinds = drawn.done, drawn.document, drawn.kinds
    assert "starting a planner and an executor" in done.stderr
    assert "residual_diff_threshold 0.5" in done.stdout
    assert "attention_backend _native_math" in done.stdout
    assert document["program"]["attention_backend"] == "_native_math"
    assert kinds[:4] == ["FULL"] * 4
    assert set(kinds) == {"FULL", "CACHED"}
    assert document["plan_id"] in done.stdout
    assert document["computed_steps"] == kinds.count("FULL")


def test_a_record_is_replayed_bit_for_bit(drawn: Drawn, replayed: Drawn) -> None:
    first, again = load_file(drawn.latents), load_file(replayed.latents)
    assert list(first) == ["latents"]
    assert first["latents"].dtype is torch.float32
    assert torch.equal(first["latents"], again["latents"])
    assert replayed.kinds == drawn.kinds


def test_a_picture_is_kept_as_webp_by_the_name_of_its_file(drawn: Drawn, replayed: Drawn) -> None:
    assert "warning" not in replayed.done.stderr
    kept = Image.open(drawn.picture)
    assert (kept.format, kept.size) == ("WEBP", (32, 32))
    assert Image.open(replayed.picture).format == "PNG"
    assert drawn.pixels == replayed.pixels
    artifact, _ = drawn.document["artifacts"]
    assert (artifact["name"], artifact["media_type"]) == ("image.webp", "image/webp")
    assert artifact["sha256"] == hashlib.sha256(drawn.picture.read_bytes()).hexdigest()


def test_the_replayed_ops_are_the_ones_in_the_file(drawn: Drawn, tmp_path: Path) -> None:
    document = drawn.document
    wanted = ["FULL"] * 5 + ["CACHED"] + ["FULL"] * 4
    assert wanted != drawn.kinds
    for step, kind in zip(document["steps"], wanted, strict=True):
        step["ops"][0]["kind"] = kind
    record = tmp_path / "record.json"
    record.write_text(json.dumps(document))
    edited = _draw(tmp_path, "x.png", "--replay", record)
    assert edited.kinds == wanted
    assert edited.pixels != drawn.pixels


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
