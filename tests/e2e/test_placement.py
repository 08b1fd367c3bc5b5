"""Placements through the public API: who could serve a plan, and who loads anew for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from ditplan.v1 import planner_pb2, planner_pb2_grpc

from tests.e2e.processes import Service, ditplan

# Processes start, which takes ten times as long on a busy machine.
pytestmark = pytest.mark.timeout(300)

INT8 = "quantize_config: {quant_type: int8_weight_only, exclude_layers: [embed, norm]}\n"
FLOAT8 = "quantize_config: {quant_type: float8, exclude_layers: [embed, norm]}\n"


def test_an_executor_loads_anew_for_a_plan_that_no_other_holds(
    start_planner: Callable[..., Service],
    start_executor: Callable[..., Service],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    planner = start_planner()
    start_executor(planner, "--allow-reload", name="there")

    def compiled(config: str) -> planner_pb2.ExecutorMatch:
        with grpc.insecure_channel(planner.address) as channel:
            stub = planner_pb2_grpc.PlannerServiceStub(channel)
            request = planner_pb2.CompilePlanRequest(model=str(checkpoint), config=config)
            [found] = stub.CompilePlan(request, timeout=20).executors
            return found

    def generate(config: str, *options: str, check: bool = True) -> str:
        file = tmp_path / "config.yaml"
        file.write_text(config)
        done = ditplan(
            *("generate", "--planner", planner.address, "--model", checkpoint, "--config", file),
            *("--prompt", "a red circle", "--steps", "4", "--seed", "7", "--height", "32"),
            *("--width", "32", "--out", tmp_path / "x.png", *options),
            check=check,
        )
        return done.stderr + done.stdout

    held = compiled("")
    assert (held.executor, list(held.differences), held.after_reload) == ("there", [], False)
    wanted = compiled(INT8)
    assert wanted.after_reload
    assert "int8_weight_only" in " ".join(wanted.differences)
    impossible = compiled(FLOAT8)
    assert not impossible.after_reload
    refused = generate(FLOAT8, check=False)
    assert "FAILED_PRECONDITION" in refused
    assert "the plan wants float8_per_row" in refused
    assert "needs a CUDA device of at least sm89" in refused

    said = generate(INT8)
    assert "needs-reload" in said
    assert "s loading" in said.splitlines()[-1]
    assert "s loading" not in generate(INT8)
    assert not compiled(INT8).differences
    assert compiled("").after_reload
    # A local run has an executor of its own to tell what to do.
    assert "with --planner its executors decide" in generate(INT8, "--warmup", check=False)
