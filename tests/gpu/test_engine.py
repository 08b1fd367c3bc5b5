"""The engine on a GPU: as plain diffusers bit for bit, as the CPU up to rounding."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from executor.engine.program import OpOutcome
from tests.conformance import traces
from tests.conformance.test_recorded import DATA
from tests.conformance.verdict import judge
from tests.executor.engine.test_families import RUNS
from tests.executor.engine.whole_runs import built, program_of, run_of


def test_recorded_runs_decide_the_same(cuda: torch.device) -> None:
    file = DATA / "dbcache_traces.json"
    with np.load(file.with_suffix(".npz")) as arrays:
        cases = traces.cases(json.loads(file.read_text()), arrays, str(cuda))
        report = judge("dbcache_traces", cases)
    print(report.line)
    assert report.failed == []
    assert report.passed > 30


@pytest.mark.parametrize(("name", "guided"), RUNS)
def test_runs_are_those_of_diffusers_and_of_the_cpu(
    cuda: torch.device, name: str, guided: bool
) -> None:
    computed, adaptive, cached = (
        program_of(name, guided, strip, fn=1, bn=1) for strip in ("1111", "1?1?", "1010")
    )
    pipeline = built(name)
    wanted = [run_of(pipeline, name, guided, each) for each in (adaptive, cached)]
    pipeline.to(cuda)
    try:
        plain = run_of(pipeline, name, guided)
        assert plain.latents.is_cuda
        for program in (computed, adaptive):
            assert torch.equal(run_of(pipeline, name, guided, program).latents, plain.latents)
        again = [run_of(pipeline, name, guided, each) for each in (adaptive, cached, cached)]
    finally:
        pipeline.to("cpu")
    assert torch.equal(again[1].latents, again[2].latents)
    for here, there in zip(again, wanted, strict=False):
        scale = float(there.latents.abs().max())
        torch.testing.assert_close(here.latents.cpu(), there.latents, rtol=0, atol=1e-3 * scale)
        assert here.blocks == there.blocks
        assert _kinds(here.outcomes) == _kinds(there.outcomes)
        for mine, other in zip(_diffs(here.outcomes), _diffs(there.outcomes), strict=True):
            assert mine == pytest.approx(other, rel=1e-2)


def _kinds(outcomes: list[tuple[OpOutcome | None, ...]]) -> list[list[Any]]:
    return [[op and op.kind for op in ops] for ops in outcomes]


def _diffs(outcomes: list[tuple[OpOutcome | None, ...]]) -> list[float]:
    return [op.residual_diff for ops in outcomes for op in ops if op and op.residual_diff]
