"""Sizes, flags and heads; ``tests.conformance`` checks how Cache-DiT resolves ``auto``."""

from __future__ import annotations

import pytest

from planner.compile.compiler import Compilation, compile_config
from planner.compile.plan import Topology
from planner.compile.request import Request
from planner.diagnostics import Severity
from planner.models.facts import ModelFacts
from planner.models.resolve import from_name


def compiled(keys: str, model: ModelFacts, gpus: int | None) -> Compilation:
    # 60 x 64 image tokens, which 2, 4, 8 and 16 ranks can share, as they can the prompt's 512.
    request = Request(world_size=gpus, height=960, width=1024)
    return compile_config(f"parallelism_config: {{{keys}}}", model, request)


@pytest.mark.parametrize(
    ("keys", "gpus", "ring_ulysses_tp"),
    [
        ("ulysses_size: auto", 4, (1, 4, 1)),
        ("ulysses_size: auto, tp_size: 2", 8, (1, 4, 2)),
        ("ring_size: auto", 4, (4, 1, 1)),
        ("tp_size: auto, ring_size: 2", 6, (2, 1, 3)),
        ("ulysses_size: auto, ring_size: 2, tp_size: 2", 4, (2, 1, 2)),
        ("ulysses_size: 2, ring_size: 2, tp_size: 2", 8, (2, 2, 2)),
        ("tp_size: 4", None, (1, 1, 4)),
    ],
)
def test_sizes_cover_the_ranks(
    keys: str, gpus: int | None, ring_ulysses_tp: tuple[int, int, int], flux: ModelFacts
) -> None:
    compilation = compiled(keys, flux, gpus)
    ring, ulysses, tp = ring_ulysses_tp
    assert compilation.program is not None
    assert compilation.program.topology == Topology(
        world_size=ring * ulysses * tp, ring_size=ring, ulysses_size=ulysses, tp_size=tp
    )
    assert compilation.request.world_size == ring * ulysses * tp


def test_flags_reach_the_mesh(flux: ModelFacts) -> None:
    compilation = compiled(
        "ulysses_size: 2, ulysses_anything: true, ulysses_float8: true, ulysses_async: true, "
        "extra_parallel_modules: [vae, text_encoder]",
        flux,
        2,
    )
    assert compilation.program is not None
    assert compilation.program.topology == Topology(
        world_size=2,
        ulysses_size=2,
        ulysses_anything=True,
        ulysses_float8=True,
        ulysses_async=True,
        extra_parallel_modules=("text_encoder", "vae"),
    )
    ring = compiled(
        "ring_size: 2, ring_rotate_method: allgather, ring_convert_to_fp32: false", flux, 2
    )
    assert ring.program is not None
    assert ring.program.topology == Topology(
        world_size=2, ring_size=2, ring_rotate_method="allgather", ring_convert_to_fp32=False
    )


@pytest.mark.parametrize(
    ("keys", "gpus", "code", "hint"),
    [
        # FLUX.1 has 24 heads.
        ("tp_size: 5", 5, "heads-do-not-divide", "sizes that divide: 1, 2, 3, 4, 6, 8, 12, 24"),
        ("ulysses_size: 16", 16, "heads-do-not-divide", "ulysses_anything: true"),
        ("ulysses_size: 8, tp_size: 6", 48, "heads-do-not-divide", "ulysses_anything: true"),
        (
            "tp_size: 5, ulysses_size: 1, ulysses_anything: false",
            5,
            "heads-do-not-divide",
            "sizes that divide",
        ),
        (
            "ring_size: 2, ulysses_float8: true",
            2,
            "flag-without-ulysses",
            "ulysses_float8: false",
        ),
        (
            "tp_size: 2, ring_size: 2, ulysses_async: true",
            4,
            "flag-without-ulysses",
            "ulysses_async: false",
        ),
        ("ulysses_size: 2, backend: native_pytorch", 2, "other-backend", "backend: auto"),
        ("tp_size: 2, backend: native_diffuser", 2, "other-backend", "backend: auto"),
        ("ulysses_size: 2, tp_size: 2, backend: cache_dit", 4, "other-backend", "backend: auto"),
        (
            "ulysses_size: 2, ring_size: 2, ulysses_anything: true",
            4,
            "anything-with-ring",
            "ring_size: 1",
        ),
    ],
)
def test_what_cannot_run_is_refused(
    keys: str, gpus: int, code: str, hint: str, flux: ModelFacts
) -> None:
    compilation = compiled(keys, flux, gpus)
    (found,) = compilation.diagnostics
    assert compilation.program is None
    assert found.code == code
    assert found.hint.startswith(hint)


WAN = from_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
SEPARATE = "cfg_diff_compute_separate: false"


@pytest.mark.parametrize(
    ("keys", "gpus", "mesh"),
    [
        ("guidance_size: 2", 2, Topology(2, guidance_size=2)),
        ("guidance_size: 2, ulysses_size: auto", 8, Topology(8, 1, 4, 1, guidance_size=2)),
        ("guidance_size: 2, ring_size: 2, tp_size: 2", 8, Topology(8, 2, 1, 2, guidance_size=2)),
        ("guidance_size: 1, tp_size: 2", 2, Topology(2, tp_size=2)),
    ],
)
def test_halves_are_counted_with_the_other_sizes(keys: str, gpus: int, mesh: Topology) -> None:
    program = compiled(keys, WAN, gpus).program
    assert program is not None
    assert program.topology == mesh
    assert program.attention_backend == (
        "" if mesh.ring_size * mesh.ulysses_size == 1 else "native"
    )
    branches = [column.branch for column in program.columns]
    assert program.halves() == ([0, 1] if mesh.guidance_size == 2 else [0] * len(branches))


@pytest.mark.parametrize(
    ("keys", "gpus", "code", "message", "hint"),
    [
        ("guidance_size: 3", 3, "invalid-value", "3 is not allowed", ""),
        ("guidance_size: auto", 2, "invalid-value", "'auto' is not allowed", ""),
        (
            "guidance_size: 2",
            4,
            "sizes-do-not-cover",
            "guidance_size x ring_size x ulysses_size x tp_size is 2, but there are 4 ranks",
            "use 2 ranks",
        ),
        (
            "guidance_size: 2, backend: cache_dit",
            2,
            "other-backend",
            "these sizes make backend auto",
            "backend: auto",
        ),
    ],
)
def test_halves_that_cannot_be_are_refused(
    keys: str, gpus: int, code: str, message: str, hint: str
) -> None:
    (found,) = compiled(keys, WAN, gpus).diagnostics
    assert found.code == code
    assert found.message.startswith(message)
    assert found.hint.startswith(hint)


@pytest.mark.parametrize(
    ("name", "request_", "why", "hint"),
    [
        ("black-forest-labs/FLUX.1-dev", {}, "this model takes the guidance scale", ""),
        ("Tongyi-MAI/Z-Image-Turbo", {}, "this model is guided in one forward of twice", ""),
        ("black-forest-labs/FLUX.2-klein-4B", {}, "this model runs without guidance", ""),
        ("Qwen/Qwen-Image", {}, "this request has no guidance", "and a negative prompt"),
        (
            "Wan-AI/Wan2.1-T2V-14B-Diffusers",
            {"guidance_scale": 1.0},
            "this request has no guidance",
            "a guidance_scale above 1, or",
        ),
    ],
)
def test_halves_need_two_forwards_a_step(
    name: str, request_: dict[str, float], why: str, hint: str
) -> None:
    config = "parallelism_config: {guidance_size: 2}"
    (found,) = compile_config(
        config, from_name(name), Request(world_size=2, **request_)
    ).diagnostics  # type: ignore[arg-type]
    assert (found.code, found.field) == ("one-forward", "parallelism_config.guidance_size")
    assert f"but {why}" in found.message
    assert hint in found.hint
    assert found.hint.endswith("guidance_size: 1")


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        (SEPARATE, True),
        (f"{SEPARATE}, residual_diff_threshold: 0.0", False),
        (f"{SEPARATE}, cfg_compute_first: true", False),
        ("Fn_compute_blocks: 1", False),
    ],
)
def test_halves_wait_for_no_diff_of_each_other(keys: str, refused: bool) -> None:
    config = f"parallelism_config: {{guidance_size: 2}}\ncache_config: {{{keys}}}"
    compilation = compile_config(config, WAN, Request(world_size=2))
    codes = [d.code for d in compilation.diagnostics if d.severity is Severity.ERROR]
    assert codes == (["diff-of-other-ranks"] if refused else [])


def test_widths_that_ranks_cannot_share_are_refused() -> None:
    # 40 heads, which 5 ranks could share, and a feed-forward of 13,824 = 2^9 x 27 channels.
    wan = from_name("Wan-AI/Wan2.1-T2V-14B-Diffusers")
    (found,) = compiled("tp_size: 5", wan, 5).diagnostics
    assert found.code == "width-does-not-divide"
    assert found.message == (
        "the 13824 inputs of blocks.*.ffn.net.2 in transformer do not divide by tp_size 5"
    )
    assert found.hint == "sizes that divide: 1, 2, 4, 8"
    assert compiled("tp_size: 8", wan, 8).program is not None


@pytest.mark.parametrize(
    ("keys", "gpus"), [("ulysses_size: 5, ulysses_anything: true", 5), ("ring_size: 16", 16)]
)
def test_heads_need_not_divide_where_they_are_not_shared_out(
    keys: str, gpus: int, flux: ModelFacts
) -> None:
    assert compiled(keys, flux, gpus).program is not None


@pytest.mark.parametrize(
    ("keys", "gpus"),
    [
        ("ulysses_size: 2, backend: CACHE_DIT", 2),
        ("ring_size: 2, backend: native_diffuser", 2),
        ("tp_size: 2, backend: native_pytorch", 2),
        ("ring_size: 2, tp_size: 2, backend: native_hybrid", 4),
    ],
)
def test_a_backend_may_be_named_if_it_is_the_one(keys: str, gpus: int, flux: ModelFacts) -> None:
    assert not compiled(keys, flux, gpus).diagnostics


@pytest.mark.parametrize(
    ("keys", "code", "severity"),
    [
        ("tp_size: 2, ulysses_float8: true", "flag-without-ulysses", "warning"),
        ("tp_size: 2, ring_rotate_method: allgather", "without-effect", "hint"),
        ("tp_size: 2, extra_parallel_modules: [text_encoder_3]", "no-such-module", "warning"),
    ],
)
def test_what_a_mesh_has_no_use_for_is_no_part_of_the_plan(
    keys: str, code: str, severity: str, flux: ModelFacts
) -> None:
    compilation = compiled(keys, flux, 2)
    assert [(d.code, d.severity.value) for d in compilation.diagnostics] == [(code, severity)]
    assert compilation.program == compiled("tp_size: 2", flux, 2).program


def test_the_order_of_modules_is_no_part_of_the_plan(flux: ModelFacts) -> None:
    one, other = (
        compiled(f"tp_size: 2, extra_parallel_modules: [{names}]", flux, 2).program
        for names in ("vae, text_encoder, vae", "text_encoder, vae")
    )
    assert one is not None
    assert one == other


def test_the_old_place_of_the_keys_is_read(flux: ModelFacts) -> None:
    old = compiled(
        "ulysses_size: 2, parallel_kwargs: {experimental_ulysses_float8: true, ring: 2}", flux, 4
    )
    assert [d.code for d in old.diagnostics] == ["legacy-key"] * 2
    assert [d.hint for d in old.diagnostics] == ["ulysses_float8: true", "ring_size: 2"]
    new = compiled("ulysses_size: 2, ring_size: 2, ulysses_float8: true", flux, 4)
    assert old.program == new.program is not None
    twice = compiled("ulysses: 2, parallel_kwargs: {ulysses_size: 2, foo: 1}", flux, 2)
    assert [(d.code, d.field) for d in twice.diagnostics] == [
        ("duplicate-key", "parallelism_config.parallel_kwargs.ulysses_size"),
        ("unknown-key", "parallelism_config.parallel_kwargs.foo"),
    ]


class TestSequence:
    """Ranks that share a sequence have equal parts of it, unless `ulysses_anything` says else."""

    @pytest.mark.parametrize("model", ["FLUX.1-dev", "FLUX.2-dev"])
    def test_the_prompt_divides_where_it_is_shared(self, model: str) -> None:
        facts = from_name(f"black-forest-labs/{model}")
        config = "parallelism_config: {ulysses_size: 3}"
        compilation = compile_config(config, facts, Request(height=768, width=768))
        found = [d.message for d in compilation.diagnostics]
        assert found == [
            "the 512 tokens of the prompt do not divide by ring_size 1 x ulysses_size 3"
        ]

    def test_a_prompt_that_is_only_attended_to_need_not_divide(self) -> None:
        facts = from_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
        config = "parallelism_config: {ulysses_size: 3}"
        request = Request(height=480, width=768)
        assert compile_config(config, facts, request).program is not None

    @pytest.mark.parametrize(
        ("config", "height", "divides"),
        [
            ("{ulysses_size: 4}", 1024, True),
            ("{ulysses_size: 8}", 528, False),  # 33 x 64 tokens divide by 8 no less than by 64
            ("{ulysses_size: 4, ulysses_anything: true}", 528, True),
            ("{ring_size: 4, ulysses_size: 2}", 528, False),
            ("{tp_size: 4}", 528, True),
        ],
    )
    def test_image_tokens_divide(
        self, config: str, height: int, divides: bool, flux: ModelFacts
    ) -> None:
        request = Request(height=height, width=1008)  # 63 tokens a row
        compilation = compile_config(f"parallelism_config: {config}", flux, request)
        codes = [d.code for d in compilation.diagnostics]
        assert ("sequence-does-not-divide" not in codes) == divides, codes
