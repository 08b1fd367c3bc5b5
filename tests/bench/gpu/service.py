"""A checkpoint through planner and executor, from its files to pictures."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from tests.bench.engine.whole_run import STEPS, configs
from tests.bench.gpu.scale import Scale
from tests.bench.inputs import CONFIG
from tests.bench.report import Figure, Table
from tests.e2e.processes import Service, ditplan


def service(scale: Scale, steps: int = STEPS) -> Table:
    """A run to warm up, then one of every config, by the command that users call."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, ExitStack() as stack:
        directory = Path(name)
        model = directory / "model"
        scale.checkpoint().save_pretrained(model, max_shard_size="8GB")
        gc.collect()
        if scale.device.type == "cuda":
            torch.cuda.empty_cache()
        data = str(directory / "data")
        planner = Service(directory, "planner", "-m", "planner", "serve", "planner", "--data", data)
        stack.callback(planner.kill)
        planner.await_ready()
        began = time.monotonic()
        placed = ("--model", str(model), "--device", scale.device.type)
        arguments = ("-m", "executor", "--planner", planner.address, *placed)
        executor = Service(directory, "executor", *arguments)
        stack.callback(executor.kill)
        executor.await_ready(150)
        ready = time.monotonic() - began
        size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
        rows = []
        for title, count, *config in (
            ("first", 2),
            ("uncached", steps),
            (CONFIG.name, steps, "--config", CONFIG),
            ("SCM fast", steps, "--config", _static(directory)),
        ):
            began = time.monotonic()
            record = directory / "record.json"
            told = ditplan(
                *("generate", "--planner", planner.address, "--model", model),
                *("--height", str(scale.side), "--width", str(scale.side), "--steps", str(count)),
                *("--prompt", "a red heart", "--seed", "1", "--record", record),
                *("--out", directory / "picture.png", *config),
            ).stderr.strip()
            wall = time.monotonic() - began
            run = json.loads(record.read_text())
            seconds = (run["denoise_seconds"], run["total_seconds"], wall)
            shown = (Figure(each, ".3f", " s") for each in seconds)
            rows.append((title, *shown, told.splitlines()[-1]))
        executor.stop()
    return Table(
        f"{scale.title} through planner and executor",
        ("", "denoising", "the run", "the command", "it says"),
        tuple(rows),
        f"The executor was ready in {ready:.1f} s, with {size / 2**30:.2f} GiB to load.",
    )


def _static(directory: Path) -> Path:
    [text] = [text for name, text in configs() if name == "SCM fast, static"]
    file = directory / "fast.yaml"
    file.write_text(text)
    return file
