"""What a plan promises at best."""

from __future__ import annotations

from planner.compile.cost import Cost


def ideal_speed_up(cost: Cost, steps: int, computed: int) -> float:
    """Over computing all steps, by floating point operations, as if only blocks took time.

    ``cost`` is that of a program with one column; ``computed``: steps that compute every block.
    """
    (column,) = cost.columns
    saved = (steps - computed) * (column.full_flops - column.cached_flops)
    return cost.full_flops / (cost.full_flops - saved)
