"""A loop that indexes its blocks: FLUX.1 adds a ControlNet's residual after each of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from executor.engine.execution import Execution
from executor.engine.program import Program
from tests.executor.engine.programs import flux_program, uncached

TOKENS, TEXT = 16, 6


def _inputs(transformer: Any, seed: int) -> dict[str, Any]:
    """One forward with residuals for some blocks of either list, each unlike the others."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    return {
        "hidden_states": noise(1, TOKENS, transformer.config.in_channels),
        "encoder_hidden_states": noise(1, TEXT, transformer.config.joint_attention_dim),
        "pooled_projections": noise(1, transformer.config.pooled_projection_dim),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(TOKENS, 3),
        "txt_ids": torch.zeros(TEXT, 3),
        "guidance": torch.ones(1),
        "controlnet_block_samples": [noise(1, TOKENS, width) for _ in range(2)],
        "controlnet_single_block_samples": [noise(1, TOKENS, width) for _ in range(2)],
        "return_dict": False,
    }


@torch.no_grad()
def _forwards(transformer: Any, program: Program, inputs: list[dict[str, Any]]) -> list[Tensor]:
    execution = Execution({"transformer": transformer}, program)
    results = []
    with execution.attached():
        for each in inputs:
            results.append(transformer(**each)[0])
            execution.end_step()
    return results


@pytest.mark.parametrize("program", [uncached(2), flux_program("11", fn=3, bn=1)])
def test_computed_steps_equal_the_model_alone(pipeline: Any, program: Program) -> None:
    transformer = pipeline.transformer
    inputs = [_inputs(transformer, seed) for seed in (1, 2)]
    with torch.no_grad():
        alone = [transformer(**each)[0] for each in inputs]
    for mine, plain in zip(_forwards(transformer, program, inputs), alone, strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize(("fn", "bn"), [(1, 0), (1, 1), (2, 0), (2, 4), (1, 4), (1, 5), (3, 2)])
def test_a_cached_step_of_equal_inputs_is_the_computed_one(pipeline: Any, fn: int, bn: int) -> None:
    """Whatever the split: no residual is lost where blocks are skipped, and none added twice."""
    transformer = pipeline.transformer
    inputs = _inputs(transformer, 1)
    computed, cached = _forwards(transformer, flux_program("10", fn=fn, bn=bn), [inputs, inputs])
    torch.testing.assert_close(cached, computed, rtol=0, atol=2e-5)
    changed = {**inputs, "controlnet_block_samples": None, "controlnet_single_block_samples": None}
    without = _forwards(transformer, flux_program("1", fn=fn, bn=bn), [changed])[0]
    assert (without - computed).abs().max() > 1e-2


def test_the_skipped_blocks_do_not_run(pipeline: Any) -> None:
    transformer = pipeline.transformer
    ran: list[str] = []
    handles = [
        block.register_forward_hook(lambda *_, name=f"{name}.{i}": ran.append(name))
        for name in ("transformer_blocks", "single_transformer_blocks")
        for i, block in enumerate(getattr(transformer, name))
    ]
    inputs = _inputs(transformer, 1)
    try:
        _forwards(transformer, flux_program("10", fn=1, bn=1), [inputs, inputs])
    finally:
        for handle in handles:
            handle.remove()
    assert ran[6:] == ["transformer_blocks.0", "single_transformer_blocks.3"]
