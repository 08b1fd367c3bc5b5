"""Blocks that are compiled when they are loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from executor.engine import run as engine
from executor.engine.program import Branch, Calibrator, Column, Op, OpKind, Program
from executor.errors import PlacementError
from executor.placement.compiling import why_not_compiled
from executor.placement.load import LoadedPipeline, load
from executor.placement.quantization import Quantization
from tests.executor.parallel.shared_runs import relative

LISTS = ("transformer_blocks", "single_transformer_blocks")
SPEC = engine.RunSpec("a red cat", 32, 32, 7, 3.5)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _draw(loaded: LoadedPipeline) -> torch.Tensor:
    kinds = (OpKind.FULL, OpKind.CACHED, OpKind.FULL)
    column = Column("transformer", Branch.COND, LISTS, 1, 1, Calibrator())
    program = Program((column,), tuple((Op(kind),) for kind in kinds))
    return engine.run(loaded.pipeline, program, SPEC).latents


@pytest.mark.parametrize("kind", ["", "int8_per_row"])
def test_a_compiled_pipeline_draws_the_same_and_compiles_once(checkpoint: Path, kind: str) -> None:
    compiled = load(str(checkpoint), quantization=Quantization(kind), compiled=True)
    plain = load(str(checkpoint), quantization=Quantization(kind))
    assert (compiled.compiled, plain.compiled) == (True, False)
    # Rounding to eight bits makes more of the last bits of a float.
    assert relative(_draw(compiled), _draw(plain)) < (1e-2 if kind else 1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    with torch._dynamo.config.patch(error_on_recompile=True):
        _draw(compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_what_is_missing_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_compiled(torch.device("cpu")) == []
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PlacementError, match=r"--compile: .* install g\+\+"):
        load("/no/such/model", compiled=True)
