"""What is found wrong with a checkpoint before anything is loaded from it, and while it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from executor.checkpoints.checkpoint import inspect
from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline, load

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
TRANSFORMER_INDEX = f"{TRANSFORMER}.index.json"
T5 = "text_encoder_2/model.safetensors"
T5_INDEX = f"{T5}.index.json"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def sharded(copy: Path, loaded: LoadedPipeline) -> Path:
    for path, size in ((TRANSFORMER, "500KB"), (T5, "15KB")):
        file = copy / path
        file.unlink()
        getattr(loaded.pipeline, file.parent.name).save_pretrained(file.parent, max_shard_size=size)
    return copy


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _refused(directory: Path) -> str:
    with pytest.raises(PlacementError) as caught:
        inspect(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", [TRANSFORMER_INDEX, T5_INDEX])
@pytest.mark.parametrize("damage", ["missing", "byte short", "byte long", "other tensors"])
def test_a_damaged_shard_is_named(sharded: Path, path: str, damage: str) -> None:
    index = json.loads((sharded / path).read_text())
    tensor, name = sorted(index["weight_map"].items())[-1]
    shard = (sharded / path).parent / name
    whole = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "byte short":
        shard.write_bytes(whole[:-1])
    elif damage == "byte long":
        shard.write_bytes(whole + b"\0")
    else:
        tensors = load_file(shard)
        tensors["other"] = tensors.pop(tensor)
        save_file(tensors, shard, {"format": "pt"})
    message = _refused(sharded)
    assert str(shard) in message
    assert damage != "other tensors" or tensor in message


@pytest.mark.parametrize("path", [TRANSFORMER_INDEX, T5_INDEX])
@pytest.mark.parametrize("name", ["../../x.safetensors", "/x.safetensors", "a/x", "..", "", None])
def test_an_index_that_leaves_its_directory_is_refused(
    sharded: Path, path: str, name: str | None
) -> None:
    index = json.loads((sharded / path).read_text())
    outside = sharded.parent / "x.safetensors"
    save_file({"a": torch.zeros(1)}, outside)
    _edit(sharded / path, weight_map=index["weight_map"] | {"a": name})
    assert f"{sharded / path}: {name!r} is no name of a file *.safetensors beside it" in _refused(
        sharded
    )


def test_a_component_is_no_path(copy: Path) -> None:
    _edit(copy / "model_index.json", **{"../vae": ["diffusers", "AutoencoderKL"]})
    assert "'../vae' is no name of a component" in _refused(copy)


def test_of_two_layouts_the_one_that_will_be_read_counts(
    copy: Path, loaded: LoadedPipeline
) -> None:
    # Diffusers prefers shards, transformers a single file.
    for path, size in ((TRANSFORMER, "500KB"), (T5, "15KB")):
        folder, single = (copy / path).parent, (copy / path).read_bytes()
        getattr(loaded.pipeline, folder.name).save_pretrained(folder, max_shard_size=size)
        (copy / path).write_bytes(single)
    found = inspect(copy)
    assert len(found.weights["transformer"].files) > 1
    assert [file.name for file in found.weights["text_encoder_2"].files] == ["model.safetensors"]


def _pickle(copy: Path) -> None:
    (copy / TRANSFORMER).unlink()
    torch.save({}, copy / "transformer/diffusion_pytorch_model.bin")


def _pointer(path: str) -> Callable[[Path], None]:
    def leave(copy: Path) -> None:
        (copy / path).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        )

    return leave


def _without_merges(copy: Path) -> None:
    (copy / "tokenizer/tokenizer.json").unlink()
    (copy / "tokenizer/vocab.json").write_text("{}")


def _config(path: str, **changes: object) -> Callable[[Path], None]:
    return lambda copy: _edit(copy / path, **changes)


def _adapter(copy: Path) -> None:
    (copy / "text_encoder/adapter_config.json").write_text(
        '{"base_model_name_or_path": "nobody/nothing"}'
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_pickle, "transformer: .*only safetensors are read, not diffusion_pytorch_model.bin"),
        (_pointer(TRANSFORMER), f"{TRANSFORMER}: .*git lfs pull"),
        (_pointer("tokenizer_2/tokenizer.json"), "tokenizer_2/tokenizer.json: .*git lfs pull"),
        (_without_merges, r"tokenizer: no tokenizer.json or vocab.json and merges.txt"),
        (
            _config("transformer/config.json", quantization_config={"quant_method": "torchao"}),
            "transformer/config.json: quantization_config 'torchao': .*not supported",
        ),
        (
            _config("text_encoder_2/config.json", quantization_config={"quant_method": "gptq"}),
            "text_encoder_2/config.json: quantization_config 'gptq': .*not supported",
        ),
        (
            _config("text_encoder/config.json", transformers_weights="other.safetensors"),
            "text_encoder/config.json: transformers_weights 'other.safetensors'",
        ),
        (_adapter, "text_encoder/adapter_config.json: adapters are not loaded"),
    ],
)
def test_what_is_not_supported_is_refused_before_loading(
    copy: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(copy)
    with pytest.raises(PlacementError, match=words):
        inspect(copy)


def test_a_component_that_the_pipeline_needs_is_missed(copy: Path) -> None:
    _edit(copy / "model_index.json", text_encoder_2=[None, None])
    with pytest.raises(PlacementError, match=r"no text_encoder_2, which FluxPipeline needs"):
        load(str(copy))


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        (
            "transformer",
            {"in_channels": 32},
            r"transformer: .* proj_out.bias expected .*32.* got .*16",
        ),
        ("transformer", {"num_layers": 3}, r"transformer: weights are missing: .* tensors"),
        (
            "text_encoder_2",
            {"vocab_size": 17},
            r"text_encoder_2: shared.weight is \(43, 32\) in the weights, but \(17, 32\) by config",
        ),
        ("text_encoder", {"num_hidden_layers": 2}, "text_encoder: weights are missing"),
        ("vae", {"latent_channels": 8}, r"vae: .*\.weight"),
    ],
)
def test_weights_that_differ_from_their_config_are_named(
    copy: Path, path: str, change: dict[str, object], words: str
) -> None:
    _edit(copy / path / "config.json", **change)
    with pytest.raises(PlacementError, match=words) as caught:
        load(str(copy))
    assert "\n" not in str(caught.value)


def test_weights_that_a_text_encoder_lacks_are_not_made_up(copy: Path) -> None:
    tensors = load_file(copy / T5)
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, copy / T5, {"format": "pt"})
    with pytest.raises(PlacementError, match=r"text_encoder_2: .*encoder.final_layer_norm.weight"):
        load(str(copy))
