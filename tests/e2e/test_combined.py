"""Cache, ranks, quantization and attention from one file: the one that SGLang documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.e2e.processes import ditplan

# Processes start, which takes ten times as long on a busy machine.
pytestmark = pytest.mark.timeout(300)

DEPLOY = Path(__file__).parents[2] / "deploy"
COMBINED = DEPLOY / "examples" / "combined.yaml"
# Of a trained model steps are alike enough to be cached.
MODEL = DEPLOY / "demo" / "model"
STEPS = 20
ASKED = ("--prompt", "a red circle on a blue background", "--seed", "7")


def _config(directory: Path, quant_type: str, ranks: int) -> Path:
    """The file as it is but for the type, which the device has to have; for one rank, without its
    parallelism.
    """
    config = yaml.safe_load(COMBINED.read_text())
    config["quantize_config"]["quant_type"] = quant_type
    if ranks == 1:
        config["attention_backend"] = config.pop("parallelism_config")["attention_backend"]
    file = directory / f"{ranks}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_ranks_draw_what_one_rank_draws(tmp_path: Path) -> None:
    latents = []
    for ranks in (1, 4):
        config = _config(tmp_path, "int8_weight_only", ranks)
        kept, record = tmp_path / f"{ranks}.safetensors", tmp_path / f"{ranks}.json"
        ditplan(
            *("generate", "--model", MODEL, "--config", config, "--num-gpus", str(ranks)),
            *(*ASKED, "--steps", str(STEPS), "--out", tmp_path / "x.png", "--warmup"),
            *("--save-latents", kept, "--record", record),
        )
        document = json.loads(record.read_text())
        assert document["program"]["placement"]["quant_type"] == "int8_weight_only"
        assert document["program"]["attention_backend"] == "native"
        assert document["program"]["topology"]["world_size"] == ranks
        latents.append(load_file(kept)["latents"])
        assert 0 < document["computed_steps"] < STEPS
    alone, shared = latents
    assert (shared - alone).norm() / alone.norm() < 1e-4


def test_what_a_cpu_cannot_do_is_named(tmp_path: Path) -> None:
    done = ditplan(
        *("generate", "--model", MODEL, "--config", COMBINED, "--num-gpus", "2", *ASKED),
        *("--steps", str(STEPS), "--out", tmp_path / "x.png"),
        check=False,
    )
    assert done.returncode == 1
    assert "float8_per_row needs a CUDA device of at least sm89; this one is a CPU" in done.stderr
    assert "Traceback" not in done.stderr
