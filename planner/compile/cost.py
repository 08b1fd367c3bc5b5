"""What a program should cost, as numbers: estimates that follow from the model's facts.

FLOPs are those of all ranks together, two for each multiplication with its addition; bytes are
those of one rank, the one with the largest share where shares differ.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ColumnCost:
    """One column: FLOPs of the blocks of one forward, and what its cache holds at its peak.

    ``cached_flops`` are those of the first and last blocks, which a cached step computes too.
    """

    full_flops: int
    cached_flops: int
    cache_bytes: int


@dataclass(frozen=True, slots=True)
class ExchangeCost:
    """One kind of collective in one group of the mesh, as rank 0 counts it.

    Bytes are those that it sends to others, or puts into a sum: in the fully computed step that
    exchanges most, and in a run with the fewest and with the most computed steps. Decisions are
    counted as if no limit ended caching early, or as if every limit did.
    """

    collective: str
    group: str
    step_bytes: int
    min_calls: int
    min_bytes: int
    max_calls: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """``columns`` in the program's order; everything else is of transformers as a whole.

    ``step_flops``: of the most expensive step, fully computed. ``full_flops``: of a run that caches
    nothing. ``min_flops`` and ``max_flops``: at the fewest and at the most computed steps.

    ``parameter_bytes``: weights of all transformers, not of encoders and VAE.
    ``activation_bytes``: the streams and the widest layer of a block, a lower bound of what a
    forward needs.
    ``cache_bytes``: what the caches of one rank hold, which are those of the branches it runs.
    ``exchanges``: what the ranks exchange, by collective and group.
    ``dtype`` of activations and of weights that are not quantized, which the bytes assume.
    """

    columns: tuple[ColumnCost, ...]
    step_flops: int
    full_flops: int
    min_flops: int
    max_flops: int
    parameter_bytes: int
    activation_bytes: int
    cache_bytes: int
    exchanges: tuple[ExchangeCost, ...]
    dtype: str

    @property
    def min_speedup(self) -> float:
        """The ideal speed-up over computing everything, at the most computed steps."""
        return self.full_flops / self.max_flops if self.max_flops else 1.0

    @property
    def max_speedup(self) -> float:
        """The same at the fewest computed steps: no run of this program is faster than that."""
        return self.full_flops / self.min_flops if self.min_flops else 1.0
