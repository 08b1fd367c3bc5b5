"""Compiles the blocks of transformers: one graph a class of blocks, not one a model."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import Any

import torch

from executor.placement.split import TRANSFORMERS


def why_not_compiled(device: torch.device) -> list[str]:
    """What keeps torch.compile from working here, each in words."""
    found = []
    if not any(shutil.which(compiler) for compiler in ("g++", "c++", "clang++")):
        found.append("--compile: torch.compile needs a C++ compiler; install g++")
    if device.type == "cuda" and find_spec("triton") is None:
        found.append("--compile: torch.compile on CUDA needs triton: pip install triton")
    return found


def compile_blocks(pipeline: Any) -> None:
    """Has every repeated block compiled at its first call, and for other sizes at theirs.

    Not as one whole graph each: where ranks share attention, a block waits for the others.
    """
    for name in TRANSFORMERS:
        transformer = getattr(pipeline, name, None)
        if transformer is not None:
            transformer.compile_repeated_blocks()
