"""Which attention backends this device can run with the packages that are installed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from executor.engine.program import NATIVE

# (batch, tokens, heads, channels)
_SHAPE = (2, 128, 4, 64)
# Of the norm. A result that has nothing to do with the right one is off by more than 1.
_TOLERANCE = 0.05
_TOLERANCE_OF_4_BITS = 0.3
_4_BITS = ("sage_blackwell_hub",)
_NOT_DOWNLOADED = (
    "its kernel is code from the hub, which an executor does not download by itself: fetch it "
    "beforehand ({repo}) and start with HF_HUB_OFFLINE=1"
)


def probe(device: torch.device, dtype: torch.dtype) -> Mapping[str, str]:
    """Tries every backend of diffusers' dispatcher: what keeps it from running, by name.

    Empty where nothing does: it has attended to a few tokens, with the result that PyTorch's own
    attention has. Nothing is downloaded. Kernels from the hub are tried where the process is
    offline, and so can only take them from the hub's cache.
    """
    from diffusers.models import attention_dispatch as dispatch

    generator = torch.Generator("cpu").manual_seed(0)
    query, key, value = (
        torch.randn(_SHAPE, generator=generator).to(device, dtype) for _ in range(3)
    )

    def attend(name: str) -> Tensor:
        backend = dispatch.AttentionBackendName(name)
        result: Tensor = dispatch.dispatch_attention_fn(query, key, value, backend=backend)
        return result.float().cpu()

    with _silence(dispatch.__name__), torch.inference_mode():
        expected = attend(NATIVE)
        names = [backend.value for backend in dispatch.AttentionBackendName]
        return {name: _missing(name) or _fault(name, attend, expected) for name in names}


def _missing(name: str) -> str:
    """What has to be installed first."""
    from diffusers.models import attention_dispatch as dispatch
    from huggingface_hub.constants import HF_HUB_OFFLINE

    backend = dispatch.AttentionBackendName(name)
    try:
        dispatch._check_attention_backend_requirements(backend)
        if backend in dispatch._HUB_KERNELS_REGISTRY:
            if not HF_HUB_OFFLINE:
                kernel = dispatch._HUB_KERNELS_REGISTRY[backend]
                return _NOT_DOWNLOADED.format(repo=kernel.repo_id)
            dispatch._maybe_download_kernel_for_backend(backend)
    except Exception as error:
        return _line(error)
    return ""


def _fault(name: str, attend: Callable[[str], Tensor], expected: Tensor) -> str:
    try:
        result = attend(name)
    except Exception as error:
        return f"it failed when it was tried: {type(error).__name__}: {_line(error)}"
    distance = float((result - expected).norm() / expected.norm())
    if distance <= (_TOLERANCE_OF_4_BITS if name in _4_BITS else _TOLERANCE):
        return ""
    return f"its result was {distance:.0%} from that of {NATIVE} when it was tried"


@contextmanager
def _silence(logger: str) -> Iterator[None]:
    """What is missing is kept as a reason, and no news in a log."""
    its = logging.getLogger(logger)
    before, its.disabled = its.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        its.disabled = before


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
