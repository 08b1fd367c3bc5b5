"""What a device cannot do of a placement, where the device of a run is known."""

from __future__ import annotations

import re
from collections.abc import Iterator

from planner.config.acceleration import AccelerationConfig
from planner.config.document import Path
from planner.config.schema import QuantizeConfig
from planner.diagnostics import Severity

CPU = "cpu"
_CAPABILITY = re.compile(r"sm([1-9][0-9]{1,2})")
ALLOWED = f"{CPU}, or a CUDA compute capability as sm80, sm89, sm90 or sm100"

# The least compute capability that has the arithmetic (torchao, diffusers' dispatcher).
LEAST_FOR_TYPE = {
    "float8_per_row": 89,
    "float8_per_tensor": 89,
    "float8_per_block": 89,
    "int4_weight_only": 80,
    "nvfp4": 100,
    "nvfp4_weight_only": 100,
}
# Types that torchao makes of bfloat16 weights only.
NEEDS_BFLOAT16 = frozenset({"float8_per_row", "int4_weight_only", "nvfp4", "nvfp4_weight_only"})
# SageAttention has 8-bit values from sm89 on; diffusers, where its checks are on, from sm90.
LEAST_FOR_BACKEND = {
    "_native_cudnn": 80,
    "_native_flash": 80,
    "flash": 80,
    "flash_hub": 80,
    "flash_varlen": 80,
    "flash_varlen_hub": 80,
    "_flash_3": 90,
    "_flash_3_hub": 90,
    "_flash_varlen_3": 90,
    "_flash_3_varlen_hub": 90,
    "flash_4_hub": 90,
    "sage": 80,
    "sage_hub": 80,
    "sage_varlen": 80,
    "_sage_qk_int8_pv_fp16_cuda": 80,
    "_sage_qk_int8_pv_fp16_triton": 80,
    "_sage_qk_int8_pv_fp8_cuda": 89,
    "_sage_qk_int8_pv_fp8_cuda_sm90": 90,
    "sage_blackwell_hub": 100,
}
# AMD's, which have other numbers.
_NEVER_ON_CUDA = frozenset({"aiter_fa2_hub"})
_ON_CPU = frozenset({"", "native", "_native_math", "_native_flash", "flex"})


def is_device(text: str) -> bool:
    return text == CPU or _CAPABILITY.fullmatch(text) is not None


def check_device(config: AccelerationConfig, attention_backend: str, device: str) -> None:
    """Reports quantization types and an attention backend that the device does not have."""
    if config.quantize is not None:
        for key, quant_type in _types(config.quantize):
            least = LEAST_FOR_TYPE.get(quant_type)
            _check(config, ("quantize_config", *key), quant_type, least, device)
    inner = config.parallelism is not None and config.parallelism.attention_backend
    path: Path = ("parallelism_config",) if inner else ()
    path = (*path, "attention_backend")
    if attention_backend in _NEVER_ON_CUDA:
        _refuse(config, path, attention_backend, "an AMD device", device)
    elif device != CPU:
        _check(config, path, attention_backend, LEAST_FOR_BACKEND.get(attention_backend), device)
    elif attention_backend not in _ON_CPU:
        _check(config, path, attention_backend, LEAST_FOR_BACKEND.get(attention_backend, 1), device)


def check_dtype(config: AccelerationConfig, dtype: str) -> None:
    """Reports quantization types that are not made of weights of that dtype."""
    if config.quantize is None or dtype == "bfloat16":
        return
    for key, quant_type in _types(config.quantize):
        if quant_type in NEEDS_BFLOAT16:
            config.report(
                Severity.ERROR,
                "quantized-dtype",
                ("quantize_config", *key),
                f"{quant_type} is made of bfloat16 weights, not {dtype}",
            )


def _types(quantize: QuantizeConfig) -> Iterator[tuple[Path, str]]:
    """Every type that a layer is to have, by its key in the section."""
    chosen = quantize.components_to_quantize
    own = {
        name: each.quant_type
        for name, each in (chosen.items() if isinstance(chosen, dict) else ())
        if each is not None and each.quant_type is not None
    }
    if not chosen or len(own) < len(chosen):
        yield ("quant_type",), quantize.quant_type
    for name, quant_type in own.items():
        yield ("components_to_quantize", name, "quant_type"), quant_type
    for part, quant_type in (quantize.precision_plan or {}).items():
        yield ("precision_plan", part), quant_type


def _check(
    config: AccelerationConfig, path: Path, what: str, least: int | None, device: str
) -> None:
    if least is None:
        return
    match = _CAPABILITY.fullmatch(device)
    if match is not None and int(match[1]) >= least:
        return
    needs = "a CUDA device" if least == 1 else f"a CUDA device of at least sm{least}"
    _refuse(config, path, what, needs, device)


def _refuse(config: AccelerationConfig, path: Path, what: str, needs: str, device: str) -> None:
    config.report(
        Severity.ERROR, "device-capability", path, f"{what} needs {needs}; this one is {device}"
    )
