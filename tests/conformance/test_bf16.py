"""Runs in bfloat16 against those that ``record_bf16`` took from cache-dit: the decisions, the
residual diffs as the bfloat16 numbers that they are, and the latents bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from executor.engine.execution import Execution
from executor.engine.program import OpKind, OpOutcome
from tests.conformance.record_bf16 import FILE, digest
from tests.executor.engine.tiny_transformers import TinyTransformer, executable

RECORDED = json.loads(FILE.read_text())
STEPS = RECORDED["meta"]["steps"]
SAME_CPU = RECORDED["meta"]["cpu"] == torch.backends.cpu.get_cpu_capability()
"""Other vector units sum in another order, which shows in the last bits of a bfloat16."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_recorded_diffs_are_bf16_numbers() -> None:
    diffs = [
        diff
        for case in RECORDED["cases"]
        for context in case["contexts"].values()
        for branch in context.values()
        for diff in branch["diffs"].values()
    ]
    assert len(diffs) > 100
    assert torch.tensor(diffs, dtype=torch.bfloat16).tolist() == diffs


def _compare(ops: list[OpOutcome], wanted: dict[str, Any], threshold: float) -> None:
    """Decisions and diffs; on another CPU up to a decision that its last bits may turn."""
    assert len(ops) == len(wanted["computed"])
    for step, op in enumerate(ops):
        recorded = wanted["diffs"].get(str(step))
        # What the last bits of 12 steps come to: some CPUs multiply bfloat16 as it is.
        tolerance = 0 if SAME_CPU or recorded is None else recorded * 2**-4
        decided = (op.kind is OpKind.FULL) == (wanted["computed"][step] == "1")
        if op.residual_diff is not None:
            assert abs(op.residual_diff - recorded) <= tolerance, step
            if not decided and abs(recorded - threshold) <= tolerance:
                return
        assert decided, step


@pytest.mark.parametrize(
    "case", RECORDED["cases"], ids=[f"{i}-{c['family']}" for i, c in enumerate(RECORDED["cases"])]
)
def test_a_bf16_run_decides_as_recorded(case: dict[str, Any]) -> None:
    tiny = TinyTransformer(case["family"], dtype=torch.bfloat16)
    config = json.dumps({"cache_config": case["config"]})
    program = executable(tiny.compile(config, STEPS, guided=case["guided"]))
    model = tiny.build()
    execution = Execution({"transformer": model}, program)
    outcomes: list[tuple[OpOutcome | None, ...]] = []
    latents = tiny.inputs()["latents"]
    with execution.attached():
        for after in tiny.denoise(model, STEPS, guided=case["guided"]):
            latents = after
            outcomes.append(execution.end_step())
    for c, column in enumerate(program.columns):
        wanted = case["contexts"][column.block_lists[0]][column.branch.value]
        ops = [op for step in outcomes if (op := step[c]) is not None]
        _compare(ops, wanted, case["config"].get("residual_diff_threshold", 0.08))
    if SAME_CPU:
        assert digest(latents) == case["latents"]
