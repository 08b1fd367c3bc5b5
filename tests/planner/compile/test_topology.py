"""Sizes, flags and heads; ``tests.conformance`` checks how Cache-DiT resolves ``auto``."""

from __future__ import annotations

import pytest

from planner.compile.compiler import Compilation, compile_config
from planner.compile.plan import Topology
from planner.compile.request import Request
from planner.models.facts import ModelFacts


def compiled(keys: str, model: ModelFacts, gpus: int | None) -> Compilation:
    # 60 x 64 image tokens, which 2, 3, 4, 5, 6 and 8 ranks can share.
    request = Request(world_size=gpus, height=960, width=1024)
    return compile_config(f"parallelism_config: {{{keys}}}", model, request)


@pytest.mark.parametrize(
    ("keys", "gpus", "ring_ulysses_tp"),
    [
        ("ulysses_size: auto", 4, (1, 4, 1)),
        ("ulysses_size: auto, tp_size: 2", 8, (1, 4, 2)),
        ("ring_size: auto", 3, (3, 1, 1)),
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
        "ring_rotate_method: allgather, ring_convert_to_fp32: false, "
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
        ring_rotate_method="allgather",
        ring_convert_to_fp32=False,
        extra_parallel_modules=("vae", "text_encoder"),
    )


@pytest.mark.parametrize(
    ("keys", "gpus", "code", "hint"),
    [
        # FLUX.1 has 24 heads.
        ("tp_size: 5", 5, "heads-do-not-divide", "sizes that divide: 1, 2, 3, 4, 6, 8, 12, 24"),
        ("ulysses_size: 5", 5, "heads-do-not-divide", "ulysses_anything: true"),
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
        ("tp_size: 2, ulysses_async: true", 2, "flag-without-ulysses", "ulysses_async: false"),
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


@pytest.mark.parametrize("keys", ["ulysses_size: 5, ulysses_anything: true", "ring_size: 5"])
def test_heads_need_not_divide_where_they_are_not_shared_out(keys: str, flux: ModelFacts) -> None:
    assert compiled(keys, flux, 5).program is not None


class TestSequence:
    """Ranks that share a sequence have equal parts of it, unless `ulysses_anything` says else."""

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
