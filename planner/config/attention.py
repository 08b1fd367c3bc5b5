"""Names of attention backends, and what they can do.

The names are those of diffusers 0.42.1 (``AttentionBackendName`` in ``attention_dispatch.py``) as
far as an executor can have them; Cache-DiT 1.5.3 adds some. Who refuses a mask is read from the
same sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

AttentionBackend = Literal[
    "native",
    "_native_cudnn",
    "_native_efficient",
    "_native_flash",
    "_native_math",
    "flex",
    "flash",
    "flash_hub",
    "flash_varlen",
    "flash_varlen_hub",
    "_flash_3",
    "_flash_3_hub",
    "_flash_varlen_3",
    "_flash_3_varlen_hub",
    "flash_4_hub",
    "aiter_fa2_hub",
    "sage",
    "sage_hub",
    "sage_blackwell_hub",
    "sage_varlen",
    "_sage_qk_int8_pv_fp8_cuda",
    "_sage_qk_int8_pv_fp8_cuda_sm90",
    "_sage_qk_int8_pv_fp16_cuda",
    "_sage_qk_int8_pv_fp16_triton",
    "xformers",
]

REFUSES_MASKS = frozenset(
    {
        "_native_flash",
        "flash",
        "flash_hub",
        "_flash_3",
        "_flash_3_hub",
        "flash_4_hub",
        "aiter_fa2_hub",
        "sage",
        "sage_hub",
        "sage_blackwell_hub",
        "_sage_qk_int8_pv_fp8_cuda",
        "_sage_qk_int8_pv_fp8_cuda_sm90",
        "_sage_qk_int8_pv_fp16_cuda",
        "_sage_qk_int8_pv_fp16_triton",
    }
)
"""Fail on any mask, on one rank too."""

MERGES_PARTS = frozenset({"native", "_native_flash"})
"""Give partial results with their weights, as a ring that passes keys and values on needs them."""

ALIASES: Mapping[str, str] = {"_sdpa_cudnn": "_native_cudnn"}
"""Names that Cache-DiT has for what diffusers has under another."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why no executor has a backend, and what to write in its place."""

    reason: str
    instead: str = "native"


_FFPA = Unsupported("is a backend of Cache-DiT's own (FFPA), which executors do not have")
_NPU = Unsupported("runs on NPUs; executors run on CPUs and CUDA devices")

UNSUPPORTED: Mapping[str, Unsupported] = {
    "_native_npu": _NPU,
    "_native_xla": Unsupported("runs on XLA devices; executors run on CPUs and CUDA devices"),
    "sage3": Unsupported(
        "is a backend of Cache-DiT's own (SageAttention 3), which executors have from the hub",
        "sage_blackwell_hub",
    ),
    "ffpa": _FFPA,
    "ffpa_fp8": _FFPA,
    "ffpa_fp8_per_block": _FFPA,
    "ffpa_fp4": _FFPA,
    "_npu_fia": _NPU,
    "_mindiesd_laser": _NPU,
}
"""Names of diffusers and Cache-DiT that are refused by name."""
