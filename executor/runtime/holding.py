"""What must be the same on every rank, settled when the model is loaded."""

from __future__ import annotations

from typing import Any

from ditplan.runtime.v1.runtime_pb2 import Holding

from executor.placement.load import LoadedPipeline


def holding(loaded: LoadedPipeline) -> Holding:
    return Holding(
        checkpoint_digest=loaded.checkpoint.digest,
        world_size=loaded.share.world_size,
        tp_size=loaded.share.tp_size,
        extra_parallel_modules=loaded.share.encoders,
        dtype=loaded.dtype,
        versions=loaded.versions,
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
    for name in (
        "world_size",
        "tp_size",
        "extra_parallel_modules",
        "dtype",
        "versions",
        "attention_backends",
    ):
        held, wanted = getattr(theirs, name), getattr(mine, name)
        if held != wanted:
            found.append(f"another {name}: {_text(held)}, not {_text(wanted)}")
    return [f"rank {rank} holds {text}" for text in found]


def _text(value: Any) -> str:
    return str(value) if isinstance(value, int | str) else ", ".join(value) or "none"
