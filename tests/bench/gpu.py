"""Measures a FLUX pipeline of full size on a GPU: steps, whole runs, placements.

Its weights are noise: what a step takes does not depend on them, what it draws shows nothing. Run
it with `make bench-gpu`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import nn

from executor.engine.execution import Execution
from executor.placement.compiling import compile_blocks
from executor.placement.offload import Offload, place
from executor.placement.quantization import Quantization
from executor.placement.quantize import quantize, stored_bytes
from executor.placement.quiet import silence_libraries
from planner.models.resolve import from_name
from tests.bench.engine.__main__ import compare
from tests.bench.engine.models import Subject, large
from tests.bench.engine.rounds import now
from tests.bench.engine.whole_run import Setting, configs, whole_runs
from tests.e2e.processes import Service, ditplan
from tests.executor.engine.programs import flux_program
from tests.executor.tiny import clip, t5

SIDE = 1024
IMAGE_TOKENS, TEXT_TOKENS = (SIDE // 16) ** 2, 512
CUDA = torch.device("cuda", 0)


def pipeline_of(transformer: Any) -> Any:
    """As FLUX.1-dev's, without encoders."""
    vae = _vae().to(CUDA, torch.bfloat16)
    encoders = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipeline = FluxPipeline(scheduler=_scheduler(), vae=vae, transformer=transformer, **encoders)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _scheduler() -> Any:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def steps(transformer: Any, *, with_peer: bool) -> None:
    subject = Subject("FLUX.1-dev's size", transformer, 1, IMAGE_TOKENS, TEXT_TOKENS, rounds=7)
    compare(subject, with_peer=with_peer)


def runs(transformer: Any, *, with_peer: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    prompt, pooled = (
        torch.randn(shape, generator=generator).to(CUDA, torch.bfloat16)
        for shape in ((1, TEXT_TOKENS, 4096), (1, 768))
    )
    facts = from_name("black-forest-labs/FLUX.1-dev")
    pipeline = pipeline_of(transformer)
    title = f"FLUX.1-dev's size, {SIDE} x {SIDE} pixels"
    setting = Setting(title, pipeline, facts, prompt, pooled, SIDE, 1, rounds=2, threshold=0.99)
    whole_runs(setting, with_peer=with_peer)


class _Alone:
    """A pipeline that is a transformer and nothing else."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        self.components = {"transformer": transformer}


_EXCLUDED = ("embed", "embedder")
_PLACEMENTS: dict[str, Callable[[_Alone], object]] = {
    "bfloat16": lambda alone: None,
    "bfloat16, compiled": compile_blocks,
    **{
        kind: lambda alone, kind=kind: quantize(alone, Quantization(kind, _EXCLUDED), CUDA)
        for kind in ("float8_per_row", "float8_per_tensor", "float8_per_block", "int8_weight_only")
    },
    "float8_per_row, compiled": lambda alone: (
        quantize(alone, Quantization("float8_per_row", _EXCLUDED), CUDA),
        compile_blocks(alone),
    ),
    "--dit-layerwise-offload": lambda alone: place(alone, CUDA, Offload(dit_layerwise=True)),
}


@torch.no_grad()
def placements() -> None:
    """A computed and a cached step of each, and what it holds; every one has weights of its own."""
    print(f"placements of FLUX.1-dev's size, medians of {_STEPS} steps of a kind, than bfloat16")
    print(f"  {'':25} {'computed':>18} {'cached':>18} {'weights':>9} {'at most':>9}  first step")
    plain: list[float] = []
    for name, prepare in _PLACEMENTS.items():
        alone = _Alone(large())
        if name.startswith("--"):
            alone.transformer.to("cpu")
        try:
            prepare(alone)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            first, computed, cached = _milliseconds(alone.transformer)
        except Exception as error:
            print(f"  {name:25} {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        plain = plain or [computed, cached]
        weights = sum(stored_bytes(p) for p in alone.transformer.parameters())
        print(
            f"  {name:25} {computed:8.1f} ms {plain[0] / computed:5.2f}x {cached:8.2f} ms "
            f"{plain[1] / cached:5.2f}x {weights / 2**30:5.1f} GiB "
            f"{torch.cuda.max_memory_allocated() / 2**30:5.1f} GiB  {first / 1e3:.1f} s",
            flush=True,
        )
        del alone
        gc.collect()


_STEPS = 3
"""Of a kind; two more go before them."""


def _milliseconds(transformer: Any) -> tuple[float, float, float]:
    """Of the first step, of one that computes and of one that caches."""
    strip = "11" + "1" * _STEPS + "00" + "0" * _STEPS
    execution = Execution({"transformer": transformer}, flux_program(strip))
    inputs = Subject("", transformer, 1, IMAGE_TOKENS, TEXT_TOKENS, 1).inputs()
    spent = []
    with execution.attached():
        for arguments in islice(inputs, len(strip)):
            began = now(CUDA)
            transformer(**arguments)
            execution.end_step()
            spent.append((now(CUDA) - began) / 1e6)
    return spent[0], statistics.median(spent[2 : 2 + _STEPS]), statistics.median(spent[-_STEPS:])


def service() -> None:
    """A checkpoint of that size through planner and executor, from its files to pictures."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, ExitStack() as stack:
        directory = Path(name)
        model = directory / "model"
        checkpoint().save_pretrained(model, max_shard_size="8GB")
        gc.collect()
        torch.cuda.empty_cache()
        planner = Service(directory, "planner", *_PLANNER, "--data", str(directory / "data"))
        stack.callback(planner.kill)
        planner.await_ready()
        began = time.monotonic()
        arguments = ("--planner", planner.address, "--model", str(model), "--device", "cuda")
        executor = Service(directory, "executor", "-m", "executor", *arguments)
        stack.callback(executor.kill)
        executor.await_ready(150)
        size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
        print(f"executor ready in {time.monotonic() - began:.1f} s, {size / 2**30:.1f} GiB to load")
        for title, *config in (
            ("first", "--steps", "2"),
            ("uncached", "--steps", "28"),
            ("cache.yaml", "--steps", "28", "--config", "deploy/examples/cache.yaml"),
            ("SCM fast", "--steps", "28", "--config", str(_static(directory))),
        ):
            began = time.monotonic()
            record = directory / "record.json"
            options = ("--prompt", "a red heart", "--seed", "1", "--record", record)
            done = ditplan(
                *("generate", "--planner", planner.address, "--model", model, *options),
                *("--out", directory / "picture.png", *config),
            )
            wall = time.monotonic() - began
            run = json.loads(record.read_text())
            print(
                f"  {title:12} {run['denoise_seconds']:7.3f} s denoising, "
                f"{run['total_seconds']:7.3f} s the run, {wall:7.3f} s the command"
            )
            print("   ", done.stderr.strip().splitlines()[-1], flush=True)
        executor.stop()


_PLANNER = ("-m", "planner", "serve", "planner")


def _static(directory: Path) -> Path:
    [text] = [text for name, text in configs() if name == "SCM fast, static"]
    file = directory / "fast.yaml"
    file.write_text(text)
    return file


def checkpoint() -> Any:
    """A pipeline like FLUX.1-dev's, whose encoders have one layer."""
    vae = _vae().to(torch.bfloat16)
    return FluxPipeline(
        scheduler=_scheduler(),
        vae=vae,
        text_encoder=clip.text_encoder(768, 77).to(torch.bfloat16),
        tokenizer=clip.tokenizer(77),
        text_encoder_2=t5.encoder(4096).to(torch.bfloat16),
        tokenizer_2=t5.tokenizer(TEXT_TOKENS),
        transformer=large(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["steps", "runs", "service", "placements"])
    parts = parser.parse_args().parts
    if not torch.cuda.is_available():
        parser.error("no CUDA device")
    silence_libraries()
    # Read when it is imported.
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    with_peer = find_spec("cache_dit") is not None
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    if {"steps", "runs"} & {*parts}:
        transformer = large()
        for part in (steps, runs):
            if part.__name__ in parts:
                part(transformer, with_peer=with_peer)
        del transformer
        gc.collect()
    if "service" in parts:
        service()
    if "placements" in parts:
        placements()


if __name__ == "__main__":
    main()
