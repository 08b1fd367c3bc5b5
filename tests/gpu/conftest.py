"""Tests that need a GPU: `make gpu`."""

from __future__ import annotations

import pytest
import torch

from executor.placement.quiet import silence_libraries

silence_libraries()


@pytest.fixture(autouse=True)
def cuda() -> torch.device:
    """The device, computing fp32 as fp32: TensorFloat-32 has 10 bits of mantissa."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or not `make gpu`")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", 0)
