"""What must be the same on every rank, settled when the model is loaded."""

from __future__ import annotations

from typing import Any

from ditplan.runtime.v1.runtime_pb2 import Holding
from ditplan.v1.plan_pb2 import Placement

from executor.codec_placement import quantization_from_proto, quantization_to_proto
from executor.placement.load import LoadedPipeline

SETTLED = (
    "world_size",
    "tp_size",
    "extra_parallel_modules",
    "dtype",
    "versions",
    "placement",
    "compiled",
    "offloaded",
    "attention_backends",
)


def holding(loaded: LoadedPipeline, digest: str) -> Holding:
    """``digest``: of its checkpoint, which is not read again."""
    return Holding(
        checkpoint_digest=digest,
        world_size=loaded.share.world_size,
        tp_size=loaded.share.tp_size,
        extra_parallel_modules=loaded.share.encoders,
        dtype=loaded.dtype,
        versions=loaded.versions,
        placement=quantization_to_proto(loaded.quantization),
        compiled=loaded.compiled,
        offloaded=loaded.offloaded,
        attention_backends=loaded.attention_backends,
    )


def differences(rank: int, theirs: Holding, mine: Holding) -> list[str]:
    """What another rank holds that rank 0 does not, in words."""
    found = []
    if theirs.checkpoint_digest != mine.checkpoint_digest:
        found.append(
            f"another checkpoint: {theirs.checkpoint_digest[:12]}, not "
            f"{mine.checkpoint_digest[:12]}"
        )
    for name in SETTLED:
        held, wanted = getattr(theirs, name), getattr(mine, name)
        if held != wanted:
            found.append(f"another {name}: {_text(held)}, not {_text(wanted)}")
    return [f"rank {rank} holds {text}" for text in found]


def _text(value: Any) -> str:
    if isinstance(value, Placement):
        return str(quantization_from_proto(value)) or "none"
    return str(value) if isinstance(value, int | str) else ", ".join(value) or "none"
