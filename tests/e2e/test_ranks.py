"""Several ranks through the public API and the command line, started as users start them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import torch
from ditplan.v1 import generation_pb2, generation_pb2_grpc
from safetensors.torch import load, load_file

from tests.e2e.conftest import CACHE_YAML
from tests.e2e.processes import Service, ditplan, eventually

# Processes start and start anew, which takes ten times as long on a busy machine.
pytestmark = pytest.mark.timeout(300)

CONFIG = CACHE_YAML + "parallelism_config:\n  ulysses_size: auto\n"
# What is split when it is loaded has to be asked of the executor.
SPLIT = """\
parallelism_config:
  tp_size: auto
  extra_parallel_modules: [text_encoder, text_encoder_2, vae]
"""
STEPS = 10
# Long enough that something can happen in the middle.
LONG = 120
SUCCEEDED = generation_pb2.GENERATION_STATE_SUCCEEDED
CANCELLED = generation_pb2.GENERATION_STATE_CANCELLED
SPEC = {"prompt": "a red circle", "seed": 7, "height": 32, "width": 32}
RESTART_SECONDS = 100.0


def test_generate_brings_up_ranks_that_draw_what_one_process_draws(
    tmp_path: Path, checkpoint: Path
) -> None:
    from executor.engine.run import RunSpec, run
    from executor.placement.load import load as load_pipeline
    from tests.executor.engine.programs import flux_program

    config, latents = tmp_path / "ranks.yaml", tmp_path / "latents.safetensors"
    record = tmp_path / "record.json"
    config.write_text(SPLIT)
    done = ditplan(
        *("generate", "--model", checkpoint, "--config", config, "--num-gpus", "2"),
        *("--prompt", SPEC["prompt"], "--steps", str(STEPS), "--seed", "7", "--height", "32"),
        *("--width", "32", "--out", tmp_path / "x.png", "--save-latents", latents),
        *("--record", record),
    )
    assert "an executor of 2 ranks" in done.stderr
    assert json.loads(record.read_text())["program"]["topology"]["tp_size"] == 2
    alone = run(load_pipeline(str(checkpoint)).pipeline, flux_program("1" * STEPS), RunSpec(**SPEC))
    shared = load_file(latents)["latents"]
    assert torch.allclose(shared, alone.latents, atol=1e-5)


def _create(stub: generation_pb2_grpc.GenerationServiceStub, model: Path, steps: int) -> str:
    spec = generation_pb2.GenerationSpec(
        model=str(model), num_inference_steps=steps, config=CONFIG, save_latents=True, **SPEC
    )
    request = generation_pb2.CreateGenerationRequest(spec=spec)
    return stub.CreateGeneration(request, timeout=20).generation.name


def _get(stub: generation_pb2_grpc.GenerationServiceStub, name: str) -> generation_pb2.Generation:
    request = generation_pb2.GetGenerationRequest(name=name)
    return stub.GetGeneration(request, timeout=5).generation


def _latents(stub: generation_pb2_grpc.GenerationServiceStub, name: str) -> torch.Tensor:
    request = generation_pb2.ReadArtifactRequest(name=f"{name}/artifacts/latents.safetensors")
    data = b"".join(response.data for response in stub.ReadArtifact(request, timeout=20))
    return load(data)["latents"]


def test_a_killed_rank_costs_a_run_time_and_nothing_else(
    start_planner: Callable[..., Service], services: list[Service], checkpoint: Path, tmp_path: Path
) -> None:
    planner = start_planner()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    launcher += ["--nproc-per-node", "2", "--max-restarts", "1", "-m", "executor"]
    ranks = Service(
        tmp_path,
        "ranks",
        *(*launcher, "--name", "ranks", "--planner", planner.address, "--model", str(checkpoint)),
    )
    services.append(ranks)
    ranks.await_ready(RESTART_SECONDS)
    with grpc.insecure_channel(planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)

        def steps(name: str) -> int:
            return _get(stub, name).steps_done

        undisturbed = _create(stub, checkpoint, LONG)
        eventually(lambda: _get(stub, undisturbed).state == SUCCEEDED, 60)

        cancelled = _create(stub, checkpoint, 1000)
        eventually(lambda: steps(cancelled) > 5)
        stub.CancelGeneration(generation_pb2.CancelGenerationRequest(name=cancelled), timeout=5)
        eventually(lambda: _get(stub, cancelled).state == CANCELLED, 5)

        struck = _create(stub, checkpoint, LONG)
        eventually(lambda: steps(struck) > 5)
        os.kill(_pid(ranks, 1), signal.SIGKILL)
        eventually(lambda: _get(stub, struck).state == SUCCEEDED, RESTART_SECONDS)
        finished = _get(stub, struck)
        assert finished.attempt == 2
        assert finished.executor == "ranks"
        assert torch.equal(_latents(stub, struck), _latents(stub, undisturbed))
    assert '"reason": "rank 1 ended"' in ranks.log


def _pid(ranks: Service, rank: int) -> int:
    lines = [json.loads(line) for line in ranks.log.splitlines() if line.startswith("{")]
    [loaded] = [e for e in lines if e["event"] == "model_loaded" and e["rank"] == rank]
    return int(loaded["pid"])
