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


@pytest.mark.parametrize("backend", ["", "native"])
def test_a_fitting_plan_has_no_differences(loaded: LoadedPipeline, backend: str) -> None:
    assert differences(loaded, replace(FITTING, attention_backend=backend)) == []


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
        "the plan wants attention backend sage, the executor has native",
        "the plan splits tensors over 2 ranks, the executor over 1",
        "the plan shares text_encoder_2, the executor none",
        "the plan wants float8_per_row, the executor holds float32",
    ]
