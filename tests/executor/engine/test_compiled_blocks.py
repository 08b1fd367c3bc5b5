"""Caching leaves compiled blocks whole: no graph breaks in them, and none is compiled again for
what an op decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from executor.engine.execution import Execution
from executor.engine.program import NATIVE, OpKind, Program
from executor.placement.quiet import silence_libraries
from tests.executor.engine.tiny_transformers import (
    FAMILIES,
    WITH_CFG,
    TinyTransformer,
    adaptive,
    executable,
    static,
)

silence_libraries()

STEPS = 6
# Between them: the streams as blocks and as the cache leave them, in front of any block.
FIRST = static("110010", {"enable_taylorseer": True, "Bn_compute_blocks": 1})
OTHERS = (
    adaptive(0.5, {"Fn_compute_blocks": 2, "max_continuous_cached_steps": 2}),
    static(
        "101101",
        {"Bn_compute_blocks": 2, "enable_foca": True, "calibrator_cache_type": "hidden_states"},
    ),
    "",
)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _run(tiny: TinyTransformer, model: nn.Module, program: Program) -> tuple[Tensor, str]:
    """The final latents, and what the first column did."""
    execution, kinds = Execution({"transformer": model}, program), ""
    latents = torch.empty(0)
    with execution.attached():
        for after in tiny.denoise(model, STEPS, guided=tiny.family in WITH_CFG):
            latents = after
            op = execution.end_step()[0]
            kinds += "1" if op is not None and op.kind is OpKind.FULL else "0"
    return latents, kinds


def _compare(
    family: str, backend: Any, graphs: Callable[[], int], *, attention: str = NATIVE
) -> None:
    """Runs every config on compiled and on plain blocks; only the first run may compile."""
    tiny = TinyTransformer(family)
    compiled, plain = tiny.build(), tiny.build()
    compiled.compile_repeated_blocks(fullgraph=True, backend=backend)
    programs = [
        replace(
            executable(tiny.compile(config, STEPS, guided=family in WITH_CFG)),
            attention_backend=attention,
        )
        for config in (FIRST, *OTHERS)
    ]
    first, *others = programs
    latents, kinds = _run(tiny, compiled, first)
    assert kinds == "110010"
    torch.testing.assert_close(latents, _run(tiny, plain, first)[0], rtol=1e-4, atol=1e-4)
    known = graphs()
    assert known > 0
    with torch._dynamo.config.patch(error_on_recompile=True):
        for program in others:
            latents, kinds = _run(tiny, compiled, program)
            expected, wanted = _run(tiny, plain, program)
            assert kinds == wanted
            torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert graphs() == known


class Counting:
    """A backend that runs graphs as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module: fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return module.forward


@pytest.mark.parametrize("family", FAMILIES)
def test_no_config_breaks_or_recompiles_a_block(family: str) -> None:
    counting = Counting()
    _compare(family, counting, lambda: counting.graphs)
    assert torch._dynamo.utils.counters["graph_break"] == {}


@pytest.mark.parametrize("attention", ["_native_math", "_native_flash"])
def test_nor_does_an_attention_backend(attention: str) -> None:
    counting = Counting()
    _compare("wan", counting, lambda: counting.graphs, attention=attention)
    assert torch._dynamo.utils.counters["graph_break"] == {}


@pytest.mark.timeout(300)
def test_inductor_computes_the_same() -> None:
    _compare("wan", "inductor", lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert torch._dynamo.utils.counters["graph_break"] == {}
