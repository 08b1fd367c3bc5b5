"""Checkpoints as they lie on a hub: every family in shards, variants, names of older versions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from executor.agent.settings import Settings
from executor.engine.pipelines import PIPELINES
from executor.errors import PlacementError
from executor.placement.device import DtypeChoice
from executor.placement.load import LoadedPipeline, load
from executor.runtime.seat import Seat
from tests.executor import tiny

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in PIPELINES),
    # Wan 2.2.
    ("WanPipeline", {"boundary_ratio": 0.5}),
    ("WanImageToVideoPipeline", {"boundary_ratio": 0.5}),
]
SHARDED = ("transformer", "text_encoder")
STEM = "diffusion_pytorch_model"


def _models(pipeline: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            yield name, component


def _require_equal(held: Any, expected: Any) -> None:
    assert dict(_models(held)).keys() == dict(_models(expected)).keys()
    for name, model in _models(expected):
        states = model.state_dict(), getattr(held, name).state_dict()
        assert states[0].keys() == states[1].keys()
        for tensor, value in states[0].items():
            assert value.dtype == states[1][tensor].dtype, f"{name}.{tensor}"
            assert torch.equal(value, states[1][tensor]), f"{name}.{tensor}"


def _save_in_shards(pipeline: Any, directory: Path) -> None:
    sizes = [
        sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        for name, model in _models(pipeline)
        if name.startswith(SHARDED)
    ]
    pipeline.save_pretrained(directory, max_shard_size=min(sizes) // 3)


@pytest.mark.parametrize(
    ("name", "options"), FAMILIES, ids=[name + "-two" * bool(opts) for name, opts in FAMILIES]
)
def test_every_family_is_read_bit_for_bit_from_shards(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = tiny.build(name, **options)
    _save_in_shards(pipeline, tmp_path)
    held = load(str(tmp_path))
    for component, weights in held.checkpoint.weights.items():
        assert len(weights.files) > 1 or not component.startswith(SHARDED)
    assert {"transformer_2"} & held.checkpoint.weights.keys() == {"transformer_2"} & {
        name for name, _ in _models(pipeline)
    }
    _require_equal(held.pipeline, pipeline)
    assert held.unused == ()

    # In half the precision some layers stay in the whole: those that stay for users of diffusers.
    passed = {
        key: getattr(held.pipeline, key)
        for key, (_, class_name) in held.checkpoint.classes.items()
        if class_name == "Qwen2VLProcessor"
    }
    theirs = DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16, **passed)
    _require_equal(load(str(tmp_path), dtype=DtypeChoice.BFLOAT16).pipeline, theirs)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def doubled(copy: Path, loaded: LoadedPipeline) -> Path:
    """With a variant of transformer and first text encoder whose weights are twice the plain ones,
    that of the transformer in shards.
    """
    for component, size in (("transformer", "500KB"), ("text_encoder", "5GB")):
        module = getattr(load(str(copy)).pipeline, component)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(2)
        module.save_pretrained(copy / component, variant="fp16", max_shard_size=size)
    return copy


def _factor(directory: Path, loaded: LoadedPipeline, variant: str | None) -> list[float]:
    """How many times the plain weights each model has."""
    held = load(str(directory), variant=variant).pipeline
    found = []
    for name, model in _models(held):
        plain = getattr(loaded.pipeline, name)
        ratio = next(model.parameters()).sum() / next(plain.parameters()).sum()
        found.append(float(ratio.detach()))
    return found


def test_a_variant_is_read_where_there_is_one_and_plain_weights_elsewhere(
    doubled: Path, loaded: LoadedPipeline
) -> None:
    names = [name for name, _ in _models(loaded.pipeline)]
    assert (doubled / f"transformer/{STEM}.safetensors.index.fp16.json").is_file()
    expected = [2 if name in ("transformer", "text_encoder") else 1 for name in names]
    assert _factor(doubled, loaded, "fp16") == pytest.approx(expected)
    assert _factor(doubled, loaded, None) == pytest.approx([1] * len(names))
    theirs = DiffusionPipeline.from_pretrained(doubled, variant="fp16", dtype=torch.float32)
    _require_equal(load(str(doubled), variant="fp16").pipeline, theirs)


def test_a_variant_is_another_checkpoint(doubled: Path) -> None:
    digests = {load(str(doubled), variant=variant).checkpoint.digest for variant in (None, "fp16")}
    assert len(digests) == 2


def test_a_variant_that_is_nowhere_is_refused_with_those_that_are(doubled: Path) -> None:
    with pytest.raises(PlacementError, match=r"--variant fp8: .* only the plain ones and fp16$"):
        load(str(doubled), variant="fp8")


def test_the_older_names_of_a_variant_in_shards_are_refused(doubled: Path) -> None:
    index = doubled / f"transformer/{STEM}.safetensors.index.fp16.json"
    older = index.rename(index.with_name(f"{STEM}.safetensors.fp16.index.json"))
    with pytest.raises(PlacementError, match=f"{older} is named as older versions"):
        load(str(doubled), variant="fp16")


@pytest.mark.parametrize("variant", ["", "fp.*", "../fp16", "fp16.safetensors"])
def test_a_variant_is_a_part_of_names(doubled: Path, variant: str) -> None:
    with pytest.raises(PlacementError, match="a part of file names"):
        load(str(doubled), variant=variant)


def test_a_damaged_file_of_a_variant_counts_when_it_is_asked_for(doubled: Path) -> None:
    shard = sorted(doubled.glob(f"transformer/{STEM}.fp16-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    load(str(doubled))
    with pytest.raises(PlacementError, match=shard.name):
        load(str(doubled), variant="fp16")


def test_where_only_a_variant_is_it_is_named(doubled: Path) -> None:
    (doubled / "text_encoder/model.safetensors").unlink()
    load(str(doubled), variant="fp16")
    with pytest.raises(PlacementError, match=r"text_encoder: .* variant fp16.*--variant"):
        load(str(doubled))


def test_the_names_of_older_transformers_are_read(copy: Path, loaded: LoadedPipeline) -> None:
    clip, t5 = copy / "text_encoder/model.safetensors", copy / "text_encoder_2/model.safetensors"
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(clip).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(tensors, clip, metadata={"format": "pt"})
    tensors = load_file(t5)
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, t5, metadata={"format": "pt"})
    held = load(str(copy))
    _require_equal(held.pipeline, loaded.pipeline)
    assert held.unused == ()


def test_stored_weights_that_no_model_has_are_said(copy: Path, loaded: LoadedPipeline) -> None:
    for component, stem in (("transformer", STEM), ("text_encoder_2", "model")):
        file = copy / component / f"{stem}.safetensors"
        save_file(load_file(file) | {"more.weight": torch.ones(1)}, file, {"format": "pt"})
    held = load(str(copy))
    assert held.unused == tuple(
        f"{name}: 1 tensors, e.g. more.weight" for name in ("text_encoder_2", "transformer")
    )
    _require_equal(held.pipeline, loaded.pipeline)


def test_unused_weights_are_warned_of_and_options_arrive(doubled: Path, tmp_path: Path) -> None:
    file = doubled / f"vae/{STEM}.safetensors"
    save_file(load_file(file) | {"more.weight": torch.ones(1)}, file, {"format": "pt"})
    settings = Settings(
        planner="",
        model=str(doubled),
        name="one",
        served_name=None,
        device="cpu",
        dtype="float32",
        seat=Seat.of({}, None),
        tp_size=1,
        extra_parallel_modules=(),
        rank_timeout=1,
        variant="fp16",
    )
    with capture_logs() as logged:
        held = settings.load(settings.placement(), settings.log())
    warned = [entry["weights"] for entry in logged if entry["log_level"] == "warning"]
    assert warned == ["vae: 1 tensors, e.g. more.weight"]
    assert held.checkpoint.weights["transformer"].variant == "fp16"
    with pytest.raises(PlacementError, match="--revision main"):
        replace(settings, revision="main").load(settings.placement(), settings.log())
    absent = str(tmp_path / "absent.safetensors")
    with pytest.raises(PlacementError, match=f"--lora {absent}: no such file"):
        replace(settings, lora=absent).load(settings.placement(), settings.log())
