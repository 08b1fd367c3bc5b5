"""What ops ask of host and memory, beyond the blocks that they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tests.bench.engine.lanes import WARM_UP, Lane
from tests.bench.engine.models import Subject
from tests.bench.report import Cell, Figure, Table
from tests.executor.engine.counting import Counting, counted


@torch.no_grad()
def counts(subject: Subject, lanes: Sequence[Lane], plain: Mapping[str, Lane]) -> Table:
    """A row a lane; ``plain``: by name, what they are compared with."""
    inputs = subject.inputs()
    streams = subject.transformer.inner_dim * next(subject.transformer.parameters()).element_size()
    both = streams * subject.batch * (subject.image_tokens + subject.text_tokens)
    rows: list[tuple[Cell, ...]] = []
    for lane in lanes:
        blocks = plain[lane.against]
        while blocks.against != blocks.name and not blocks.name.startswith("plain"):
            blocks = plain[blocks.against]
        with Counting() as column:
            for _ in range(WARM_UP):
                with lane.around():
                    lane.call(next(inputs))
            arguments = next(inputs)
            with lane.around():
                reads, allocated, _ = counted(lambda lane=lane, a=arguments: lane.call(a))
        own = allocated - counted(lambda b=blocks, a=arguments: b.call(a))[1]
        held = column.held_bytes
        rows.append((lane.name, str(reads), Figure(own / both), Figure(held / both)))
    return Table(
        f"{subject.title}: what an op asks for beyond its blocks",
        ("", "values the host reads", "memory it allocates", "memory its column holds"),
        tuple(rows),
        f"Memory in units of both streams, {both} bytes.",
    )
