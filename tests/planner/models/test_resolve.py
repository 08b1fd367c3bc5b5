"""Facts of a model: from a directory, from configs, or by its published name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.models.catalog import NAMED
from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    ModelDefaults,
    ModelFacts,
    Target,
)
from planner.models.guidance import Guidance, GuidanceKind
from planner.models.lengths import SequenceRule
from planner.models.resolve import (
    MAX_CONFIG_BYTES,
    UnknownModelError,
    from_configs,
    from_directory,
    from_name,
)

CONFIGS: dict[str, dict[str, Any]] = {
    "model_index.json": {"_class_name": "FluxPipeline", "_diffusers_version": "0.42.1"},
    "transformer/config.json": {
        "_class_name": "FluxTransformer2DModel",
        "num_layers": 2,
        "num_single_layers": 10,
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "guidance_embeds": True,
    },
    "vae/config.json": {"block_out_channels": [16, 32], "sample_size": 64},
}


def written(directory: Path, configs: dict[str, dict[str, Any]]) -> Path:
    for path, config in configs.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(json.dumps(config))
    return directory


def test_flux_dev_by_name() -> None:
    facts = from_name("black-forest-labs/FLUX.1-dev")
    lists = (BlockList("transformer_blocks", 19), BlockList("single_transformer_blocks", 38))
    assert facts == ModelFacts(
        architecture=Architecture(
            "flux",
            "FluxPipeline",
            (Target("transformer", "FluxTransformer2DModel", lists, 24, 128),),
        ),
        groups=(BlockGroup("transformer", ("transformer_blocks", "single_transformer_blocks")),),
        defaults=ModelDefaults(28, 1024, 1024, size_multiple=16),
        guidance=Guidance(GuidanceKind.EMBEDDED, 3.5),
        sequence=SequenceRule(patch=16, prompt=512),
        shapes=facts.shapes,
    )
    assert facts.architecture.target("transformer").num_blocks(facts.groups[0].block_lists) == 57


def test_checkpoints_of_one_architecture_share_their_plans() -> None:
    dev, schnell = (from_name(f"black-forest-labs/FLUX.1-{name}") for name in ("dev", "schnell"))
    assert dev != schnell
    assert dev.architecture == schnell.architecture


@pytest.mark.parametrize("name", NAMED)
def test_a_name_and_a_directory_of_the_same_configs_are_one_model(
    name: str, tmp_path: Path
) -> None:
    configs = {path: dict(config) for path, config in NAMED[name].items()}
    assert from_directory(written(tmp_path, configs)) == from_name(name)


def test_a_directory_says_what_it_holds(tmp_path: Path) -> None:
    facts = from_directory(written(tmp_path, CONFIGS))
    (target,) = facts.architecture.targets
    assert [blocks.num_blocks for blocks in target.block_lists] == [2, 10]
    assert (target.num_attention_heads, target.attention_head_dim) == (4, 16)
    assert facts.defaults == ModelDefaults(28, 64, 64, size_multiple=4)
    assert facts.guidance_embeds


@pytest.mark.parametrize(
    ("limit", "length"), [(16, 16), (512, 512), (10**30, 512), (0, 512), ("77", 512), (None, 512)]
)
def test_prompts_are_as_long_as_the_tokenizer_takes(
    limit: object, length: int, tmp_path: Path
) -> None:
    tokenizer = {"tokenizer_2/tokenizer_config.json": {"model_max_length": limit}}
    facts = from_directory(written(tmp_path, CONFIGS | tokenizer))
    assert facts.sequence is not None
    assert facts.sequence.prompt == length
    assert facts.architecture == from_configs(CONFIGS, name="tiny").architecture


def test_a_vae_without_config_is_that_of_flux(tmp_path: Path) -> None:
    configs = {path: config for path, config in CONFIGS.items() if not path.startswith("vae")}
    assert from_directory(written(tmp_path, configs)).defaults == ModelDefaults(28, 1024, 1024, 16)


def test_the_default_size_is_one_that_a_request_may_have() -> None:
    facts = from_configs(change("vae/config.json", sample_size=66), name="tiny")
    assert facts.defaults == ModelDefaults(28, 64, 64, size_multiple=4)
    facts = from_configs(change("vae/config.json", sample_size=3), name="tiny")
    assert facts.defaults == ModelDefaults(28, 4, 4, size_multiple=4)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("black-forest-labs/FLUX.1-dv", "did you mean black-forest-labs/FLUX.1-dev?"),
        ("nobody/nothing", "black-forest-labs/FLUX.1-dev, black-forest-labs/FLUX.1-schnell"),
        ("", "neither a checkpoint directory nor a known model"),
    ],
)
def test_an_unknown_name_gets_the_known_ones(name: str, says: str) -> None:
    with pytest.raises(UnknownModelError) as unknown:
        from_name(name)
    assert says in str(unknown.value)


def change(path: str, **keys: Any) -> dict[str, dict[str, Any]]:
    return CONFIGS | {path: CONFIGS[path] | keys}


@pytest.mark.parametrize(
    ("configs", "says"),
    [
        ({}, "pipeline class None is not supported; supported: Flux2KleinPipeline, "),
        (change("model_index.json", _class_name="AnyPipeline"), "'AnyPipeline' is not supported"),
        (change("model_index.json", _class_name=["FluxPipeline"]), "is not supported"),
        ({"model_index.json": CONFIGS["model_index.json"]}, "transformer/config.json is missing"),
        (change("transformer/config.json", num_layers="many"), "num_layers is 'many'"),
        (change("transformer/config.json", num_layers=None), "num_layers is None"),
        (change("transformer/config.json", num_layers=-1), "num_layers is -1, not a number from 0"),
        (change("transformer/config.json", num_layers=True), "num_layers is True"),
        (change("transformer/config.json", num_single_layers=2.5), "num_single_layers is 2.5"),
        (change("transformer/config.json", num_attention_heads=0), "num_attention_heads is 0"),
        (change("transformer/config.json", num_attention_heads=float("inf")), "heads is inf"),
        (change("transformer/config.json", attention_head_dim=10**9), "attention_head_dim is 10"),
        (change("vae/config.json", block_out_channels=3), "block_out_channels is 3, not a list"),
        (change("vae/config.json", block_out_channels=[]), "block_out_channels is []"),
        (change("vae/config.json", block_out_channels=[1] * 5000), "a list of 1 to 8 entries"),
        (change("vae/config.json", sample_size=0), "sample_size is 0"),
        (change("vae/config.json", sample_size=[64, 64]), "sample_size is [64, 64]"),
    ],
)
def test_configs_that_no_checkpoint_has_are_refused(
    configs: dict[str, dict[str, Any]], says: str
) -> None:
    with pytest.raises(UnknownModelError) as unknown:
        from_configs(configs, name="tiny")
    assert str(unknown.value).startswith("tiny: ")
    assert says in str(unknown.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff{}", "cannot be read as JSON"),
        (b"[" * 200_000, "cannot be read as JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read as JSON"),
        (b"[]", "holds no JSON object"),
        (b" " * (MAX_CONFIG_BYTES + 1), f"larger than {MAX_CONFIG_BYTES} bytes"),
    ],
    ids=["cut", "bytes", "deep", "digits", "list", "large"],
)
def test_a_file_that_is_no_config_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    written(tmp_path, CONFIGS)
    (tmp_path / "transformer/config.json").write_bytes(content)
    with pytest.raises(UnknownModelError) as unknown:
        from_directory(tmp_path)
    assert "transformer/config.json: " in str(unknown.value)
    assert says in str(unknown.value)


def test_a_directory_without_an_index_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"no model_index\.json"):
        from_directory(tmp_path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    st.sampled_from(
        [
            ("transformer/config.json", "num_layers"),
            ("transformer/config.json", "num_single_layers"),
            ("transformer/config.json", "num_attention_heads"),
            ("transformer/config.json", "attention_head_dim"),
            ("transformer/config.json", "guidance_embeds"),
            ("vae/config.json", "block_out_channels"),
            ("vae/config.json", "sample_size"),
        ]
    ),
    anything,
)
def test_any_value_is_a_fact_or_unusable(place: tuple[str, str], value: Any) -> None:
    path, key = place
    try:
        facts = from_configs(change(path, **{key: value}), name="tiny")
    except UnknownModelError:
        return
    for target in facts.architecture.targets:
        assert target.num_attention_heads >= 1
    assert facts.defaults.size_multiple >= 1
