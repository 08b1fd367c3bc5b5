"""Where and in what precision the weights live."""

from __future__ import annotations

import platform
from enum import StrEnum

import torch

from executor.errors import PlacementError


class DeviceChoice(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class DtypeChoice(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


_DTYPES = {
    DtypeChoice.FLOAT32: torch.float32,
    DtypeChoice.BFLOAT16: torch.bfloat16,
    DtypeChoice.FLOAT16: torch.float16,
}


def choose_device(choice: DeviceChoice, index: int = 0) -> torch.device:
    """The device itself, the one of that index among several; AUTO takes CUDA where there is one.

    Raises:
        PlacementError: CUDA is asked for and torch sees none, or too few of them.
    """
    available = torch.cuda.is_available()
    if choice is DeviceChoice.CUDA and not available:
        raise PlacementError(
            f"device cuda: torch {torch.__version__} sees no CUDA device; use --device cpu"
        )
    if not available or choice is DeviceChoice.CPU:
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise PlacementError(
            f"device cuda:{index}: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use as many ranks on this host"
        )
    return torch.device("cuda", index)


def choose_dtype(choice: DtypeChoice, device: torch.device) -> torch.dtype:
    """AUTO is bfloat16 on CUDA and float32 on the CPU."""
    if choice is DtypeChoice.AUTO:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[choice]


def compute_capability(device: torch.device) -> str:
    """E.g. "sm90"; empty for a device that is not CUDA's."""
    if device.type != "cuda":
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm{major}{minor}"


def device_name(device: torch.device) -> str:
    """E.g. "NVIDIA H200", or the architecture of a CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.machine()
