"""FLUX transformers whose blocks do almost nothing."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.engine.models import Subject
from tests.executor.tiny import flux


def near_empty(blocks: int, *, rounds: int = 1, turn: int = 1) -> Subject:
    """A fifth of its blocks are of the first list, as in the engine's bench."""
    first = max(1, blocks // 5)
    whole = flux.build(num_layers=first, num_single_layers=blocks - first).transformer
    subject = Subject(f"{blocks} blocks", whole, 1, 16, 8, rounds, turn, passes_on=True)
    return replace(subject, transformer=subject.copy())
