"""What a plan fixes when weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from executor.placement.quantization import NOTHING, Quantization


@dataclass(frozen=True, slots=True)
class Placement:
    """How many ranks share the tensors of a transformer, which text encoders all of them share,
    sorted, and what is quantized.
    """

    tp_size: int = 1
    encoders: tuple[str, ...] = ()
    quantization: Quantization = NOTHING


UNSHARED = Placement()
"""Whole and as stored."""
