"""Whether a plan fits what an executor holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.placement.quantization import Quantization
from executor.placement.requirements import (
    Requirements,
    TargetRequirement,
    differences,
    shared_encoders,
)

TRANSFORMER = TargetRequirement(
    name="transformer",
    transformer_class="FluxTransformer2DModel",
    block_lists=(("transformer_blocks", 2), ("single_transformer_blocks", 4)),
)
FITTING = Requirements(pipeline_class="FluxPipeline", targets=(TRANSFORMER,), world_size=1)


def test_a_vae_is_shared_run_by_run(loaded: LoadedPipeline) -> None:
    assert (
        differences(
            loaded, replace(FITTING, placement=Placement(encoders=shared_encoders(["vae"])))
        )
        == []
    )


@pytest.mark.parametrize("backend", ["native", "_native_math", "_native_flash", "flex"])
def test_a_fitting_plan_has_no_differences(loaded: LoadedPipeline, backend: str) -> None:
    assert differences(loaded, replace(FITTING, attention_backend=backend)) == []


@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("sage", "`sageattention>=2.1.1`"),
        ("flash_varlen", "`flash-attn>=2.6.3`"),
        ("xformers", "`xformers>=0.0.29`"),
        ("_native_cudnn", "it failed when it was tried: RuntimeError"),
        ("sage3", "it is unknown here"),
    ],
)
def test_a_backend_that_is_missing_is_refused_with_what_to_install(
    loaded: LoadedPipeline, backend: str, line: str
) -> None:
    (found,) = differences(loaded, replace(FITTING, attention_backend=backend))
    assert found.startswith(
        f"the plan wants attention backend {backend}, which this executor cannot run: "
    )
    assert line in found


@pytest.mark.parametrize(
    ("backend", "method", "fits"),
    [
        ("_native_math", "p2p", False),
        ("_native_math", "allgather", True),
        ("_native_flash", "p2p", True),
        ("native", "p2p", True),
    ],
)
def test_a_ring_that_merges_needs_a_backend_that_gives_parts(
    loaded: LoadedPipeline, backend: str, method: str, fits: bool
) -> None:
    wanted = replace(FITTING, attention_backend=backend, ring_size=2, ring_rotate_method=method)
    found = differences(loaded, wanted)
    assert found == (
        []
        if fits
        else [
            "ring_rotate_method p2p merges partial results, which attention backend _native_math "
            "does not give; _native_flash, native do, and allgather needs none"
        ]
    )


def test_every_difference_is_listed(loaded: LoadedPipeline) -> None:
    other = Requirements(
        pipeline_class="WanPipeline",
        targets=(
            replace(TRANSFORMER, transformer_class="WanTransformer3DModel"),
            replace(TRANSFORMER, name="transformer_2"),
        ),
        world_size=4,
        placement=Placement(
            2, shared_encoders(["text_encoder_2", "vae"]), Quantization("float8_per_row")
        ),
        attention_backend="sage",
    )
    assert differences(loaded, other) == [
        "the plan is for WanPipeline, the executor holds FluxPipeline",
        "the plan's transformer is WanTransformer3DModel, here it is FluxTransformer2DModel",
        "the plan's transformer_2 is FluxTransformer2DModel, here it is nothing",
        "the plan is for 4 ranks, the executor has 1",
        "the plan wants attention backend sage, which this executor cannot run: "
        + loaded.attention_faults["sage"],
        "the plan splits tensors over 2 ranks, the executor over 1",
        "the plan shares text_encoder_2, the executor none",
        "the plan wants float8_per_row, the executor holds float32",
    ]
