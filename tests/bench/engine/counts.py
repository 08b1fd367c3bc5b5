"""What ops ask of host and memory, beyond the blocks that they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tests.bench.engine.lanes import WARM_UP, Lane
from tests.bench.engine.models import Subject
from tests.executor.engine.counting import Counting, counted


@torch.no_grad()
def counts(subject: Subject, lanes: Sequence[Lane], plain: Mapping[str, Lane]) -> None:
    """One line a lane; ``plain``: by name, what they are compared with."""
    inputs = subject.inputs()
    hidden = 4 * subject.batch * subject.transformer.inner_dim
    both = hidden * (subject.image_tokens + subject.text_tokens)
    print(f"  per op, in units of both streams ({both} bytes):")
    print(f"  {'':34} {'host reads':>10} {'allocates':>10} {'column holds':>13}")
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
        print(f"  {lane.name:34} {reads:10} {own / both:10.2f} {column.held_bytes / both:13.2f}")
