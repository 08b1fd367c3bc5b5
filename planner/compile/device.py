"""What a device cannot do of a placement, where the device of a run is known."""

from __future__ import annotations

import re
from collections.abc import Iterator

from planner.compile.plan import Placement
from planner.config.acceleration import AccelerationConfig
from planner.config.document import Path
from planner.diagnostics import Severity

CPU = "cpu"
_CAPABILITY = re.compile(r"sm([1-9][0-9]{1,2})")
ALLOWED = f"{CPU}, or a CUDA compute capability as sm80, sm89, sm90 or sm100"

# The least compute capability that has the arithmetic (torchao, diffusers' dispatcher).
_LEAST_FOR_TYPE = {
    "float8_per_row": 89,
    "float8_per_tensor": 89,
    "float8_per_block": 89,
    "int4_weight_only": 80,
}
_LEAST_FOR_BACKEND = {
    "_flash_3": 90,
    "_flash_3_hub": 90,
    "_flash_varlen_3": 90,
    "_flash_3_varlen_hub": 90,
    "_sage_qk_int8_pv_fp8_cuda": 89,
    "_sage_qk_int8_pv_fp8_cuda_sm90": 90,
    "sage_blackwell_hub": 100,
    "flash_4_hub": 90,
    "flash": 80,
    "flash_hub": 80,
    "flash_varlen": 80,
    "flash_varlen_hub": 80,
    "ffpa_fp8": 89,
    "ffpa_fp8_per_block": 89,
}
_ON_CPU = frozenset({"", "native", "_native_math", "_native_flash", "flex"})


def is_device(text: str) -> bool:
    return text == CPU or _CAPABILITY.fullmatch(text) is not None


def check_device(
    config: AccelerationConfig, placement: Placement, attention_backend: str, device: str
) -> None:
    """Reports quantization types and an attention backend that the device does not have."""
    for quant_type in dict.fromkeys(_types(placement)):
        _check(config, ("quantize_config",), quant_type, _LEAST_FOR_TYPE.get(quant_type), device)
    inner = config.parallelism is not None and config.parallelism.attention_backend
    path: Path = ("parallelism_config",) if inner else ()
    least = _LEAST_FOR_BACKEND.get(attention_backend)
    if device == CPU and attention_backend not in _ON_CPU:
        least = least or 1
    _check(config, (*path, "attention_backend"), attention_backend, least, device)


def _types(placement: Placement) -> Iterator[str]:
    if placement.quant_type:
        yield placement.quant_type
    yield from (component.quant_type for component in placement.components)
    yield from (rule.quant_type for rule in placement.precision)


def _check(
    config: AccelerationConfig, path: Path, what: str, least: int | None, device: str
) -> None:
    if least is None:
        return
    match = _CAPABILITY.fullmatch(device)
    if match is not None and int(match[1]) >= least:
        return
    needs = "a CUDA device" if least == 1 else f"a CUDA device of at least sm{least}"
    config.report(
        Severity.ERROR, "device-capability", path, f"{what} needs {needs}; this one is {device}"
    )
