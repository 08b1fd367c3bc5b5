"""Eight-bit payloads: every row of the last dimension with a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

_DTYPE = torch.float8_e4m3fn
_LARGEST = torch.finfo(_DTYPE).max
_SCALE_BYTES = 4


def payload_bytes(elements: int, row: int) -> int:
    """Bytes of so many elements in rows of that length: one each, and a scale a row."""
    return elements + elements // row * _SCALE_BYTES


def encoded(values: Tensor) -> Tensor:
    """(..., row) as a flat tensor of bytes: all values, then all scales (fp32)."""
    rows = values.float()
    scales = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / _LARGEST
    quantized = (rows / scales).to(_DTYPE)
    return torch.cat([quantized.view(torch.uint8).flatten(), scales.view(torch.uint8).flatten()])


def decoded(payload: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What was encoded, of that shape."""
    elements = payload.numel() * shape[-1] // (shape[-1] + _SCALE_BYTES)
    values = payload[:elements].view(_DTYPE).view(shape)
    # A copy: the scales need not begin where a float may.
    scales = payload[elements:].clone().view(torch.float32).view(*shape[:-1], 1)
    return (values.float() * scales).to(dtype)
