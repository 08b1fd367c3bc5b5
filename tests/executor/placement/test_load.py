"""Loading a checkpoint directory, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from executor.engine import run as engine
from executor.engine.program import Branch, Column, Op, OpKind, Program
from executor.errors import PlacementError
from executor.placement.device import DeviceChoice, DtypeChoice
from executor.placement.load import LoadedPipeline, load
from tests.executor.tiny import flux

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def _picture(pipeline: Any) -> torch.Tensor:
    lists = ("transformer_blocks", "single_transformer_blocks")
    program = Program((Column("transformer", Branch.COND, lists),), ((Op(OpKind.FULL),),) * 3)
    return engine.run(pipeline, program, engine.RunSpec("a red cat", 32, 32, 7, 3.5)).latents


def test_a_directory_is_served_by_its_real_path(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(checkpoint)
    assert load(str(tmp_path / "link")).served_name == str(checkpoint)
    monkeypatch.chdir(checkpoint.parent)
    assert load(checkpoint.name).served_name == str(checkpoint)
    assert load(checkpoint.name, served_name="tiny").served_name == "tiny"


def test_the_configs_are_announced_as_they_are(checkpoint: Path, loaded: LoadedPipeline) -> None:
    configs = loaded.checkpoint.configs
    assert sorted(configs) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer_2/tokenizer_config.json",
        "transformer/config.json",
        "vae/config.json",
    ]
    for path, text in configs.items():
        assert text == (checkpoint / path).read_text()


def test_a_reload_is_bit_equal_to_the_pipeline_that_was_saved(checkpoint: Path) -> None:
    expected = _picture(flux.build())
    for _ in range(2):
        assert torch.equal(_picture(load(str(checkpoint)).pipeline), expected)


def test_the_weights_are_the_processes_own_memory(checkpoint: Path, copy: Path) -> None:
    pipeline = load(str(copy)).pipeline
    before = _picture(pipeline)
    for file in copy.rglob("*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(_picture(pipeline), before)


def test_dtype_is_as_asked(checkpoint: Path) -> None:
    held = load(str(checkpoint), device=DeviceChoice.CPU, dtype=DtypeChoice.BFLOAT16)
    assert held.dtype == "bfloat16"
    assert held.pipeline.transformer.dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_where_there_is_none_is_refused(checkpoint: Path) -> None:
    with pytest.raises(PlacementError, match="--device cpu"):
        load(str(checkpoint), device=DeviceChoice.CUDA)


def test_sharded_weights_are_read(copy: Path, loaded: LoadedPipeline) -> None:
    (copy / TRANSFORMER).unlink()
    loaded.pipeline.transformer.save_pretrained(copy / "transformer", max_shard_size="500KB")
    assert len(list(copy.glob("transformer/*.safetensors"))) > 1
    assert torch.equal(_picture(load(str(copy)).pipeline), _picture(loaded.pipeline))


def test_a_missing_shard_is_named(copy: Path, loaded: LoadedPipeline) -> None:
    (copy / TRANSFORMER).unlink()
    loaded.pipeline.transformer.save_pretrained(copy / "transformer", max_shard_size="500KB")
    shard = sorted(copy.glob("transformer/*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(PlacementError, match=shard.name):
        load(str(copy))


@pytest.mark.parametrize(
    "path",
    [
        "model_index.json",
        TRANSFORMER,
        "vae/config.json",
        "text_encoder_2/model.safetensors",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "number", "fifo"])
def test_a_missing_or_corrupt_file_is_named(copy: Path, path: str, damage: str) -> None:
    file = copy / path
    whole = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        file.write_bytes(b"\xff\x00" * 100)
    elif damage == "number":
        file.write_text("9" * 5000)
    elif damage == "fifo":
        os.mkfifo(file)
    with pytest.raises(PlacementError) as caught:
        load(str(copy))
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message or f"{file.parent}: " in message


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("transformer/config.json", {"_class_name": []}, "is not supported"),
        (
            f"{TRANSFORMER}.index.json",
            {"metadata": {}, "weight_map": {"a": [1]}},
            "[1] is no name of a file",
        ),
        (f"{TRANSFORMER}.index.json", {"weight_map": {"a": "b"}}, "no weight_map and metadata"),
    ],
)
def test_values_of_other_types_are_said(
    copy: Path, path: str, content: dict[str, object], words: str
) -> None:
    (copy / TRANSFORMER).unlink()
    (copy / f"{TRANSFORMER}.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "b.safetensors"}}'
    )
    (copy / TRANSFORMER).with_name("b.safetensors").write_bytes(save({"a": torch.zeros(1)}))
    (copy / path).write_text(json.dumps(content))
    with pytest.raises(PlacementError) as caught:
        load(str(copy))
    assert words in str(caught.value)


def test_missing_tensors_are_an_error_and_not_random(copy: Path) -> None:
    tensors = load_file(copy / TRANSFORMER)
    removed = sorted(tensors)[3]
    del tensors[removed]
    save_file(tensors, copy / TRANSFORMER, metadata={"format": "pt"})
    with pytest.raises(PlacementError, match=f"weights are missing: 1 tensors, e.g. {removed}"):
        load(str(copy))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_unsupported_family_is_refused_by_name(copy: Path) -> None:
    _edit(copy / "model_index.json", _class_name="SanaPipeline")
    _edit(copy / "transformer/config.json", _class_name="SanaTransformer2DModel")
    with pytest.raises(PlacementError, match=r"SanaPipeline.*supported.*FluxPipeline"):
        load(str(copy))


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": ["pipeline", "MyPipeline"]},
        {"transformer": ["my_transformer", "FluxTransformer2DModel"]},
    ],
)
def test_code_of_a_checkpoint_is_never_run(copy: Path, change: dict[str, object]) -> None:
    for name in ("pipeline.py", "transformer/my_transformer.py"):
        (copy / name).write_text("raise SystemExit('it was run')")
    _edit(copy / "model_index.json", **change)
    with pytest.raises(PlacementError, match="never run"):
        load(str(copy))


@pytest.mark.parametrize("model", ["./nothing", "/nowhere/at/all", "nothing"])
def test_a_directory_that_is_not_there_is_said(model: str) -> None:
    with pytest.raises(PlacementError, match="no such directory"):
        load(model)


def test_a_hub_name_offline_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PlacementError, match=r"nobody/nothing: .*offline"):
        load("nobody/nothing")
