"""An adapter fused into the weights: equal to what diffusers makes of it, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import DiffusionPipeline
from ditplan.runtime.v1.runtime_pb2 import Holding
from safetensors.torch import save_file
from torch import Tensor, nn

from executor.__main__ import main
from executor.engine import run as engine
from executor.engine.program import Branch, Column, Op, OpKind, Program
from executor.errors import PlacementError
from executor.placement.device import DtypeChoice
from executor.placement.load import LoadedPipeline, load
from executor.placement.split import Share
from executor.runtime.holding import differences, holding
from tests.executor import tiny

RANK = 4
QUERY = "transformer.transformer_blocks.0.attn.to_q"
LAST = "transformer.single_transformer_blocks.3.proj_out"
CLIP = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


def _weight(pipeline: Any, layer: str) -> Tensor:
    component, _, path = layer.replace("text_model.", "").partition(".")
    weight = getattr(pipeline, component).get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _factors(pipeline: Any, *layers: str) -> dict[str, Tensor]:
    """In diffusers' layout."""
    drawn = torch.Generator().manual_seed(5)
    made = {}
    for layer in layers:
        rows, columns = _weight(pipeline, layer).shape
        made[f"{layer}.lora_A.weight"] = torch.randn(RANK, columns, generator=drawn) / 8
        made[f"{layer}.lora_B.weight"] = torch.randn(rows, RANK, generator=drawn) / 8
    return made


def _product(factors: Mapping[str, Tensor], layer: str) -> Tensor:
    return factors[f"{layer}.lora_B.weight"] @ factors[f"{layer}.lora_A.weight"]


def _changed(pipeline: Any, base: Any) -> set[str]:
    """The weights that differ; everything else of the two is alike."""
    found = set()
    for component, model in base.components.items():
        if not isinstance(model, nn.Module):
            continue
        held = getattr(pipeline, component)
        assert [(name, type(part)) for name, part in held.named_modules()] == [
            (name, type(part)) for name, part in model.named_modules()
        ]
        for name, value in model.state_dict().items():
            if not torch.equal(value, held.state_dict()[name]):
                found.add(f"{component}.{name.removesuffix('.weight')}")
    return found


def _picture(pipeline: Any) -> Tensor:
    lists = ("transformer_blocks", "single_transformer_blocks")
    program = Program((Column("transformer", Branch.COND, lists),), ((Op(OpKind.FULL),),) * 2)
    return engine.run(pipeline, program, engine.RunSpec("a red cat", 32, 32, 7, 3.5)).latents


@pytest.fixture
def factors(loaded: LoadedPipeline) -> dict[str, Tensor]:
    return _factors(loaded.pipeline, QUERY, LAST, CLIP)


@pytest.fixture
def file(factors: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    save_file(factors, path, {"format": "pt"})
    return path


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
def test_fused_weights_are_the_weights_plus_scale_times_the_product(
    checkpoint: Path,
    loaded: LoadedPipeline,
    factors: dict[str, Tensor],
    file: Path,
    scale: float,
) -> None:
    held = load(str(checkpoint), lora=str(file), lora_scale=scale).pipeline
    for layer in (QUERY, LAST, CLIP):
        expected = _weight(loaded.pipeline, layer) + scale * _product(factors, layer)
        torch.testing.assert_close(_weight(held, layer), expected, rtol=0, atol=1e-6)
    assert _changed(held, loaded.pipeline) == {QUERY, LAST, CLIP.replace("text_model.", "")}


@pytest.mark.parametrize("dtype", [DtypeChoice.FLOAT32, DtypeChoice.BFLOAT16])
def test_it_equals_what_diffusers_fuses(checkpoint: Path, file: Path, dtype: DtypeChoice) -> None:
    theirs = DiffusionPipeline.from_pretrained(checkpoint, dtype=getattr(torch, dtype.value))
    theirs.load_lora_weights(str(file.parent), weight_name=file.name)
    theirs.fuse_lora(["transformer", "text_encoder"], lora_scale=0.5)
    theirs.unload_lora_weights()
    held = load(str(checkpoint), dtype=dtype, lora=str(file), lora_scale=0.5).pipeline
    assert _changed(held, theirs) == set()


def test_it_draws_what_diffusers_draws_and_not_what_the_base_draws(
    checkpoint: Path, loaded: LoadedPipeline, file: Path
) -> None:
    theirs = DiffusionPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    theirs.load_lora_weights(str(file.parent), weight_name=file.name)
    theirs.fuse_lora(["transformer", "text_encoder"])
    drawn = _picture(load(str(checkpoint), lora=str(file)).pipeline)
    torch.testing.assert_close(drawn, _picture(theirs), rtol=0, atol=1e-5)
    assert (drawn - _picture(loaded.pipeline)).abs().max() > 1e-2


def test_the_alpha_of_a_file_of_peft_counts(
    checkpoint: Path, loaded: LoadedPipeline, factors: dict[str, Tensor], file: Path
) -> None:
    layer = QUERY.removeprefix("transformer.")
    settings = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": [layer]}
    said = json.dumps({f"transformer.{key}": value for key, value in settings.items()})
    kept = {key: value for key, value in factors.items() if key.startswith(QUERY)}
    save_file(kept, file, {"format": "pt", "lora_adapter_metadata": said})
    held = load(str(checkpoint), lora=str(file)).pipeline
    expected = _weight(loaded.pipeline, QUERY) + 2 * _product(factors, QUERY)
    torch.testing.assert_close(_weight(held, QUERY), expected, rtol=0, atol=1e-6)


def _kohya(pipeline: Any) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(6)
    width = _weight(pipeline, QUERY).shape[0]
    made = {}
    for layer, rows, columns in (
        ("lora_unet_double_blocks_0_img_attn_qkv", 3 * width, width),
        ("lora_unet_single_blocks_3_linear2", width, 5 * width),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32, 32),
        ("lora_te1_text_model_encoder_layers_0_self_attn_out_proj", 32, 32),
    ):
        made[f"{layer}.lora_down.weight"] = torch.randn(RANK, columns, generator=drawn) / 8
        made[f"{layer}.lora_up.weight"] = torch.randn(rows, RANK, generator=drawn) / 8
        made[f"{layer}.alpha"] = torch.tensor(RANK / 2)
    return made


def test_the_layout_of_kohya_is_read(checkpoint: Path, loaded: LoadedPipeline, file: Path) -> None:
    stored = _kohya(loaded.pipeline)
    save_file(stored, file)
    held = load(str(checkpoint), lora=str(file)).pipeline
    attention = QUERY.removesuffix("to_q")
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    whole = stored[f"{name}.lora_up.weight"] @ stored[f"{name}.lora_down.weight"] / 2
    layers = [attention + part for part in ("to_q", "to_k", "to_v")]
    for layer, product in zip(layers, whole.chunk(3), strict=True):
        expected = _weight(loaded.pipeline, layer) + product
        torch.testing.assert_close(_weight(held, layer), expected, rtol=0, atol=1e-6)
    query = CLIP.replace("text_model.", "")
    changed = {*layers, LAST, query, query.replace("q_proj", "out_proj")}
    assert _changed(held, loaded.pipeline) == changed


@pytest.mark.parametrize(
    "name",
    [
        "Flux2Pipeline",
        "QwenImagePipeline",
        "WanPipeline",
        "WanImageToVideoPipeline",
        "ZImagePipeline",
        "HunyuanVideoPipeline",
        "LTXPipeline",
    ],
)
def test_other_families_take_adapters(name: str, tmp_path: Path) -> None:
    base = tiny.build(name)
    base.save_pretrained(tmp_path / "model")
    layer = next(
        f"transformer.{path}"
        for path, module in base.transformer.named_modules()
        if isinstance(module, nn.Linear) and ".to_q" in f".{path}"
    )
    factors = _factors(base, layer)
    save_file(factors, tmp_path / "style.safetensors")
    held = load(str(tmp_path / "model"), lora=str(tmp_path / "style.safetensors")).pipeline
    expected = _weight(base, layer) + _product(factors, layer)
    torch.testing.assert_close(_weight(held, layer), expected, rtol=0, atol=1e-6)
    assert _changed(held, base) == {layer}


QWEN = ("QwenImagePipeline", "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_q")
WAN = ("WanPipeline", "blocks.0.attn1.to_q", "diffusion_model.blocks.0.self_attn.q")


@pytest.mark.parametrize(("name", "layer", "stored"), [QWEN, WAN], ids=["qwen", "wan"])
def test_the_layouts_of_other_trainers_are_read(
    tmp_path: Path, name: str, layer: str, stored: str
) -> None:
    base = tiny.build(name)
    base.save_pretrained(tmp_path / "model")
    factors = _factors(base, f"transformer.{layer}")
    down, up = factors.values()
    named = {f"{stored}.lora_down.weight": down, f"{stored}.lora_up.weight": up}
    if name == "QwenImagePipeline":
        named[f"{stored}.alpha"] = torch.tensor(RANK / 2)
        up = up / 2
    file = tmp_path / "style.safetensors"
    save_file(named, file)
    held = load(str(tmp_path / "model"), lora=str(file)).pipeline
    expected = _weight(base, f"transformer.{layer}") + up @ down
    torch.testing.assert_close(_weight(held, f"transformer.{layer}"), expected, rtol=0, atol=1e-6)
    if name == "WanPipeline":
        # Diffusers leaves it out without a warning.
        norm = "diffusion_model.blocks.0.self_attn.norm_q.diff"
        save_file(named | {norm: torch.ones(48)}, file)
        with pytest.raises(PlacementError, match=f"1 of its tensors do not belong .* {norm}"):
            load(str(tmp_path / "model"), lora=str(file))


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_share_the_fused_weights(checkpoint: Path, file: Path, rank: int) -> None:
    share = Share(rank, 2, 2)
    split = load(str(checkpoint), lora=str(file)).pipeline
    share.split(split)
    held = load(str(checkpoint), lora=str(file), share=share).pipeline
    assert _changed(held, split) == set()
    assert _weight(held, QUERY).shape[0] == 32


def test_ranks_that_fuse_something_else_hold_another_checkpoint(
    checkpoint: Path, loaded: LoadedPipeline, factors: dict[str, Tensor], file: Path
) -> None:
    whole = replace(load(str(checkpoint), lora=str(file)), served_name="styled")
    moved = file.with_name("moved.safetensors")
    moved.write_bytes(file.read_bytes())
    same = load(str(checkpoint), lora=str(moved))
    assert differences(1, _holding(same), _holding(whole)) == []
    factors[f"{QUERY}.lora_A.weight"][0, 0] += 1
    save_file(factors, moved, {"format": "pt"})
    others = (
        loaded,
        load(str(checkpoint), lora=str(moved)),
        load(str(checkpoint), lora=str(file), lora_scale=0.5),
    )
    for other in others:
        assert "another checkpoint" in differences(1, _holding(other), _holding(whole))[0]


def _holding(loaded: LoadedPipeline) -> Holding:
    return holding(loaded, loaded.checkpoint.digest)


def test_the_files_of_the_checkpoint_stay_as_they_are(checkpoint: Path, file: Path) -> None:
    before = {path: path.read_bytes() for path in checkpoint.rglob("*.safetensors")}
    load(str(checkpoint), lora=str(file))
    assert before == {path: path.read_bytes() for path in checkpoint.rglob("*.safetensors")}


def test_a_directory_stands_for_its_one_file(
    checkpoint: Path, loaded: LoadedPipeline, file: Path
) -> None:
    expected = load(str(checkpoint), lora=str(file)).checkpoint.digest
    assert load(str(checkpoint), lora=str(file.parent)).checkpoint.digest == expected
    other = file.with_name("other.safetensors")
    other.write_bytes(file.read_bytes())
    with pytest.raises(PlacementError, match=r"several files, name one: other.* style"):
        load(str(checkpoint), lora=str(file.parent))
    # What diffusers writes.
    other.rename(file.with_name("pytorch_lora_weights.safetensors"))
    assert load(str(checkpoint), lora=str(file.parent)).checkpoint.digest == expected


def _strangers(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"unet.{key}": value for key, value in factors.items()}


def _further(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    name = "transformer.transformer_blocks.7.attn.to_q"
    more = {
        key.replace(QUERY, name): value.clone() for key, value in factors.items() if QUERY in key
    }
    return factors | more


def _scales(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return factors | {f"{QUERY}.dora_scale": torch.ones(64, 1)}


def _norm(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return factors | {"transformer.transformer_blocks.0.attn.norm_q.weight": torch.ones(16)}


def _half(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in factors.items() if key != f"{QUERY}.lora_B.weight"}


def _other_rank(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return factors | {f"{QUERY}.lora_A.weight": torch.ones(RANK - 1, 64)}


def _narrow(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return factors | {f"{QUERY}.lora_A.weight": torch.ones(RANK, 48)}


def _wide(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return factors | {f"{LAST}.lora_B.weight": torch.ones(96, RANK)}


def _no_number(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return factors | {f"{QUERY}.lora_A.weight": torch.full((RANK, 64), float("nan"))}


def _unknown_of_kohya(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": torch.ones(RANK, 64),
        "lora_unet_double_blocks_0_img_mlp_0.lora_up.weight": torch.ones(256, RANK),
        "lora_te2_encoder_block_0.lora_down.weight": torch.ones(RANK, 32),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_strangers, "6 of its tensors do not belong to FluxPipeline, e.g. unet"),
        (_further, r"2 of its tensors do not belong .*transformer_blocks.7.attn.to_q.lora_A"),
        (_scales, "1 of its tensors do not belong .*dora_scale"),
        (_norm, r"1 of its tensors do not belong .*norm_q.weight"),
        (_half, f"{QUERY} has only one of its two factors"),
        (_other_rank, rf"{QUERY} is \(64, 64\) here, its factors are \(64, 4\) and \(3, 64\)"),
        (_narrow, rf"{QUERY} is \(64, 64\) here, its factors are \(64, 4\) and \(4, 48\)"),
        (_wide, rf"{LAST} is \(64, 320\) here, its factors are \(96, 4\) and \(4, 320\)"),
        (_no_number, "cannot be fused: NaN"),
        (_unknown_of_kohya, "no LoRA that diffusers reads|do not belong .*lora_te2"),
        (lambda factors: {}, "no tensors"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    checkpoint: Path, factors: dict[str, Tensor], file: Path, change: Any, words: str
) -> None:
    save_file(change(factors), file)
    with pytest.raises(PlacementError, match=f"--lora {file}: .*{words}") as caught:
        load(str(checkpoint), lora=str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_finite_number_is_refused(
    checkpoint: Path, file: Path, scale: float
) -> None:
    with pytest.raises(PlacementError, match=f"{file}: --lora-scale {scale} is no finite"):
        load(str(checkpoint), lora=str(file), lora_scale=scale)


def test_a_file_that_is_none_is_refused(checkpoint: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(PlacementError, match=f"{file}: no readable safetensors"):
        load(str(checkpoint), lora=str(file))
    for absent in ("/nowhere/style.safetensors", "style", "a/b/c"):
        with pytest.raises(PlacementError, match=f"--lora {absent}: no such file"):
            load(str(checkpoint), lora=absent)


def test_what_diffusers_cannot_adapt_is_refused_before_it_is_loaded(
    file: Path, tmp_path: Path
) -> None:
    tiny.save(tmp_path / "hunyuan", "HunyuanVideo15Pipeline")
    with pytest.raises(PlacementError, match="loads no LoRA into HunyuanVideo15Pipeline"):
        load(str(tmp_path / "hunyuan"), lora=str(file))
    tiny.save(tmp_path / "wan", "WanPipeline", boundary_ratio=0.5)
    with pytest.raises(PlacementError, match="two transformers"):
        load(str(tmp_path / "wan"), lora=str(file))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lora", "style.safetensors"], "--served-name"),
        (["--lora", "style.safetensors", "--served-name", ""], "--served-name"),
        (["--lora-scale", "0.5"], "--lora-scale without --lora"),
    ],
)
def test_what_is_adapted_needs_a_name_of_its_own(options: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["--planner", "localhost:1", "--model", "m", *options])
    assert result.exit_code == 2
    assert words in result.output
