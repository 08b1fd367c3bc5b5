"""Defaults, guidance, groups and lengths of every family, against the pipelines of diffusers."""

from __future__ import annotations

import inspect
import json
from typing import Any

import diffusers
import pytest
from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor

from executor.engine.pipelines import PIPELINES, Pictures
from planner.models.catalog import NAMED
from planner.models.components import components_of
from planner.models.guidance import NO_GUIDANCE, Guidance, GuidanceKind, NegativePrompt
from planner.models.layers import Rows
from planner.models.resolve import UnknownModelError, from_configs, from_name
from tests.planner.models import make_catalog

WAN = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
HUNYUAN_15 = "hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v"
HUNYUAN_15_LARGE = "hunyuanvideo-community/HunyuanVideo-1.5-720p_t2v"
Z_IMAGE = "Tongyi-MAI/Z-Image-Turbo"
OPTIONAL = NegativePrompt.OPTIONAL
KLEIN = "black-forest-labs/FLUX.2-klein-4B"


def test_the_table_is_what_its_script_writes() -> None:
    written = make_catalog.CATALOG.read_text()
    assert written == make_catalog.text()
    assert all(entry["source"] for entry in json.loads(written).values())


@pytest.mark.parametrize("name", NAMED)
def test_defaults_are_those_of_the_pipelines_call(name: str) -> None:
    facts = from_name(name)
    call = inspect.signature(
        getattr(diffusers, facts.architecture.pipeline_class).__call__
    ).parameters
    defaults = facts.defaults
    assert defaults.num_inference_steps == call["num_inference_steps"].default
    for size in ("height", "width"):
        if call[size].default is not None:
            assert getattr(defaults, size) == call[size].default
        assert getattr(defaults, size) % defaults.size_multiple == 0
    frames = call["num_frames"].default if "num_frames" in call else None
    assert defaults.num_frames == frames
    if frames is not None:
        assert frames % defaults.frame_multiple == 1
    assert facts.sequence is not None
    if "max_sequence_length" in call and not facts.sequence.reference:
        assert facts.sequence.prompt == call["max_sequence_length"].default
    argument = PIPELINES[facts.architecture.pipeline_class].guiding.value
    if facts.guidance.kind is not GuidanceKind.NONE and argument is not None:
        assert facts.guidance.default_scale == call[argument].default


@pytest.mark.parametrize("name", NAMED)
def test_sizes_are_of_whole_patches_of_whole_latents(name: str) -> None:
    defaults = from_name(name).defaults
    pixels, frames = 16, 1
    if "Wan" in name or "Hunyuan" in name:
        pixels, frames = (32 if "TI2V-5B" in name else 16), 4
    elif "LTX" in name:
        pixels, frames = 32, 8
    assert (defaults.size_multiple, defaults.frame_multiple) == (pixels, frames)


def test_sizes_suit_the_pipeline_and_the_transformer() -> None:
    """Wan's pipeline checks for multiples of 16, its transformer patches those of the VAE."""
    configs = {path: dict(config) for path, config in NAMED[WAN].items()}
    configs["vae/config.json"]["scale_factor_spatial"] = 12
    assert from_configs(configs, name="odd").defaults.size_multiple == 48


@pytest.mark.parametrize("name", NAMED)
def test_the_components_of_a_pipeline_are_those_of_its_class(name: str) -> None:
    pipeline_class = from_name(name).architecture.pipeline_class
    taken = inspect.signature(getattr(diffusers, pipeline_class).__init__).parameters
    found = components_of(pipeline_class)
    assert "vae" in found
    assert set(found) <= set(taken)
    assert {each for each in taken if each.startswith("text_encoder")} <= set(found)


@pytest.mark.parametrize("name", NAMED)
def test_the_executor_gives_pictures_and_negative_prompts_where_they_have_an_effect(
    name: str,
) -> None:
    facts = from_name(name)
    call = PIPELINES[facts.architecture.pipeline_class]
    uses = facts.guidance.negative_prompt is not NegativePrompt.UNUSED
    assert call.takes_negative_prompt is uses
    most = {Pictures.NONE: {0}, Pictures.ONE: {1}, Pictures.LIST: {3}}
    assert facts.max_pictures in most[call.pictures]
    assert (call.fps is None) is (facts.defaults.num_frames is None)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("black-forest-labs/FLUX.1-dev", [("transformer_blocks", "single_transformer_blocks")]),
        ("black-forest-labs/FLUX.2-dev", [("transformer_blocks",), ("single_transformer_blocks",)]),
        ("Qwen/Qwen-Image", [("transformer_blocks",)]),
        (WAN, [("blocks",)]),
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", [("blocks",), ("blocks",)]),
        (Z_IMAGE, [("layers",)]),
        (HUNYUAN, [("transformer_blocks",), ("single_transformer_blocks",)]),
        (HUNYUAN_15, [("transformer_blocks",)]),
    ],
)
def test_groups(name: str, groups: list[tuple[str, ...]]) -> None:
    facts = from_name(name)
    assert [group.block_lists for group in facts.groups] == groups
    for group in facts.groups:
        target = facts.architecture.target(group.target)
        assert target.num_blocks(group.block_lists) > 0


def test_what_passes_between_blocks() -> None:
    flux2 = from_name("black-forest-labs/FLUX.2-dev").groups
    assert [group.streams for group in flux2] == [(Rows.IMAGE, Rows.TEXT), (Rows.JOINT,)]
    assert from_name(WAN).groups[0].streams == (Rows.IMAGE,)
    assert from_name(Z_IMAGE).groups[0].streams == (Rows.JOINT,)


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        ("black-forest-labs/FLUX.1-dev", (1024, 1024, None), (4096, 512)),
        ("black-forest-labs/FLUX.1-dev", (512, 768, None), (1536, 512)),
        ("black-forest-labs/FLUX.2-dev", (1024, 1024, None), (4096, 512)),
        # The picture to be edited adds as many tokens as one of 1024 x 1024 pixels has.
        ("Qwen/Qwen-Image-Edit-2509", (512, 512, None), (1024 + 4096, 512 + 196)),
        # 81 frames are 21 layers of latents.
        (WAN, (480, 832, 81), (21 * 30 * 52, 512)),
        (WAN, (480, 832, 1), (30 * 52, 512)),
        # The image encoder's tokens are attended to apart from the prompt's.
        ("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", (480, 832, 81), (21 * 30 * 52, 512)),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", (704, 1280, 121), (31 * 22 * 40, 512)),
        # Padded to a multiple of 32.
        (Z_IMAGE, (1024, 1040, None), (4160, 512)),
        (Z_IMAGE, (528, 528, None), (1120, 512)),
        (HUNYUAN, (720, 1280, 129), (33 * 45 * 80, 256)),
        (HUNYUAN_15, (480, 848, 121), (31 * 30 * 53, 1000 + 256 + 729)),
    ],
)
def test_lengths(name: str, size: tuple[int, int, int | None], tokens: tuple[int, int]) -> None:
    sequence = from_name(name).sequence
    assert sequence is not None
    counts = sequence.counts(*size)
    assert (counts.image, counts.text) == tokens


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        ("black-forest-labs/FLUX.1-dev", Guidance(GuidanceKind.EMBEDDED, 3.5)),
        ("black-forest-labs/FLUX.1-schnell", NO_GUIDANCE),
        (KLEIN, NO_GUIDANCE),
        ("black-forest-labs/FLUX.2-klein-base-4B", Guidance(GuidanceKind.SEPARATE, 4.0)),
        (WAN, Guidance(GuidanceKind.SEPARATE, 5.0, negative_prompt=OPTIONAL)),
        (
            Z_IMAGE,
            Guidance(GuidanceKind.BATCHED, 5.0, threshold=0.0, negative_prompt=OPTIONAL),
        ),
        (HUNYUAN, Guidance(GuidanceKind.EMBEDDED, 6.0)),
        (
            HUNYUAN_15,
            Guidance(GuidanceKind.SEPARATE, 6.0, below_too=True, negative_prompt=OPTIONAL),
        ),
    ],
)
def test_guidance(name: str, guidance: Guidance) -> None:
    assert from_name(name).guidance == guidance


def test_guidance_runs_a_transformer_twice() -> None:
    wan, qwen = from_name(WAN).guidance, from_name("Qwen/Qwen-Image").guidance
    assert [wan.forwards(scale) for scale in (None, 1.0, 1.01)] == [2, 1, 2]
    assert [qwen.forwards(4.0, negative_prompt=given) for given in (False, True)] == [1, 2]
    z_image = from_name(Z_IMAGE).guidance
    assert [z_image.batch(scale) for scale in (None, 0.0, 0.5)] == [2, 1, 2]
    assert z_image.forwards(5.0) == 1
    flux = from_name("black-forest-labs/FLUX.1-dev").guidance
    assert (flux.forwards(3.5), flux.batch(3.5)) == (1, 1)


@pytest.mark.parametrize(("name", "target_size"), [(HUNYUAN_15, 640), (HUNYUAN_15_LARGE, 960)])
def test_the_size_follows_from_the_target_size(name: str, target_size: int) -> None:
    defaults = from_name(name).defaults
    processor = HunyuanVideo15ImageProcessor(vae_scale_factor=defaults.size_multiple)
    chosen = processor.calculate_default_height_width(9, 16, target_size)
    assert (defaults.height, defaults.width) == chosen


def changed(name: str, path: str, **keys: Any) -> dict[str, Any]:
    configs = json.loads(json.dumps(NAMED[name]))
    configs[path] |= keys
    return dict(configs)


@pytest.mark.parametrize(
    ("configs", "says"),
    [
        (changed(WAN, "transformer/config.json", patch_size=[2, 2, 2]), "patch_size"),
        (changed(WAN, "transformer/config.json", patch_size=[1, 2]), "patch_size"),
        (changed(WAN, "transformer/config.json", patch_size=[1, 2, None]), "patch_size"),
        (changed(WAN, "transformer/config.json", ffn_dim=0), "ffn_dim"),
        (changed(WAN, "vae/config.json", scale_factor_spatial=1.5), "scale_factor_spatial"),
        (changed(HUNYUAN, "transformer/config.json", patch_size_t=2), "patch_size_t"),
        (changed(HUNYUAN, "transformer/config.json", mlp_ratio="4"), "mlp_ratio"),
        (
            changed(HUNYUAN, "transformer/config.json", image_condition_type="token_replace"),
            "image_condition_type",
        ),
        (changed(HUNYUAN_15, "transformer/config.json", target_size=100), "target_size"),
        (changed(Z_IMAGE, "transformer/config.json", all_patch_size=[4]), "patches"),
        (changed(Z_IMAGE, "transformer/config.json", siglip_feat_dim=8), "image features"),
        (changed(Z_IMAGE, "transformer/config.json", n_heads=7), "n_heads"),
        (changed(KLEIN, "transformer/config.json", joint_attention_dim=-1), "joint_attention_dim"),
    ],
)
def test_what_is_not_supported_is_refused(configs: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownModelError, match=says):
        from_configs(configs, name="changed")
