"""Names of attention backends, and which of them take a mask.

The names are those of diffusers 0.42.1 (``AttentionBackendName`` in ``attention_dispatch.py``) and
those that Cache-DiT 1.5.3 adds. Who refuses a mask is read from the same sources.
"""

from __future__ import annotations

from typing import Literal

AttentionBackend = Literal[
    "native",
    "_native_cudnn",
    "_native_efficient",
    "_native_flash",
    "_native_math",
    "_native_npu",
    "_native_xla",
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
    # Cache-DiT's own
    "sage3",
    "_sdpa_cudnn",
    "ffpa",
    "ffpa_fp8",
    "ffpa_fp8_per_block",
    "ffpa_fp4",
    "_npu_fia",
    "_mindiesd_laser",
]

REFUSES_MASKS = frozenset(
    {
        "_native_flash",
        "_native_xla",
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

SHARES_MASKS = frozenset(
    {
        "native",
        "_native_cudnn",
        "_sdpa_cudnn",
        "flash_varlen",
        "flash_varlen_hub",
        "_flash_3_varlen_hub",
        "_native_npu",
        "_npu_fia",
        "_mindiesd_laser",
    }
)
"""Take a mask when ranks share the sequence."""

SHARES_MASKS_BY_ULYSSES_ONLY = frozenset({"flash_varlen_hub", "_flash_3_varlen_hub"})
"""Take a mask when ranks share the heads, but not in a ring."""
