"""The estimate of a plan in sentences, in units that people read."""

from __future__ import annotations

from planner.compile.cost import Cost
from planner.compile.plan import Estimate, Program
from planner.render.summary import may_cache

_FLOPS = ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs", "EFLOPs")
_BYTES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def speed_up(estimate: Estimate, steps: int) -> str:
    """The range of the ideal speed-up over computing everything.

    By FLOPs where they are known; by the number of steps elsewhere, where a cached step is taken
    to cost nothing.
    """
    known = estimate.cost is not None
    basis = "by FLOPs, Fn and Bn blocks included"
    return (
        f"{_speed_up(estimate, steps)} {basis if known else 'by step count'}: "
        "an ideal bound, not a promise"
    )


def headlines(estimate: Estimate, steps: int) -> list[tuple[str, str]]:
    """The numbers to begin with: pairs of what they are and the number."""
    cost = estimate.cost
    found = [("ideal speed-up, a bound", _speed_up(estimate, steps))]
    if cost is not None:
        run = _range(_flops(cost.min_flops), _flops(cost.max_flops))
        found += [
            ("compute of a run, an estimate", run),
            ("memory per rank, an estimate", f"{_bytes(_held(cost))} or more"),
        ]
    return found


_EXCHANGES = {
    ("all_to_all", "ulysses"): "Ulysses all-to-all",
    ("send_recv", "ring"): "ring",
    ("all_gather", "ring"): "ring all-gather",
    ("all_gather", "sequence"): "all-gather",
    ("all_reduce", "tp"): "TP all-reduce",
    ("all_gather", "guidance"): "guidance all-gather",
}


def cost_in_words(cost: Cost, program: Program) -> list[tuple[str, str]]:
    """What a run needs: pairs of a heading and a sentence."""
    topology = program.topology
    uncached = "" if cost.max_flops == cost.full_flops else f"; {_flops(cost.full_flops)} uncached"
    cached = cached_step_flops(cost, program)
    found = [
        (
            "compute",
            f"{_range(_flops(cost.min_flops), _flops(cost.max_flops))} a run, "
            f"{_flops(cost.step_flops)} in a full step"
            + (f", {_flops(cached)} in a cached one" if cached is not None else "")
            + uncached,
        ),
        (
            "memory",
            f"at least {_bytes(_held(cost))} per rank in {cost.dtype}: "
            f"parameters {_bytes(cost.parameter_bytes)}, "
            f"activations {_bytes(cost.activation_bytes)}, cache {_bytes(cost.cache_bytes)}",
        ),
    ]
    if topology.world_size == 1:
        return found
    by_step = [
        f"{_EXCHANGES[each.collective, each.group]} {_bytes(each.step_bytes)}"
        for each in cost.exchanges
        if each.step_bytes
    ]
    if by_step:
        moved = [each for each in cost.exchanges if each.step_bytes]
        low, high = (
            _bytes(sum(getattr(each, name) for each in moved))
            for name in ("min_bytes", "max_bytes")
        )
        found.append(
            (
                "exchange",
                f"{_range(low, high)} per rank a run; in a full step {', '.join(by_step)}",
            )
        )
    decisions = sum(each.max_calls for each in cost.exchanges if each.collective == "decision")
    if decisions:
        counted = f"up to {decisions} small collectives a run"
        found.append(("decisions", f"{counted}, to agree on computing or caching"))
    return found


def cached_step_flops(cost: Cost, program: Program) -> int | None:
    """Of the most expensive step, cached as far as its Fn and Bn blocks allow; None: it never is.

    What lies outside the blocks is computed in any case.
    """
    if not any(may_cache(program, column) for column in range(len(program.columns))):
        return None
    full: dict[str, int] = {}
    saved: dict[str, int] = {}
    for column, each in zip(program.columns, cost.columns, strict=True):
        full[column.target] = full.get(column.target, 0) + each.full_flops
        saved[column.target] = saved.get(column.target, 0) + each.full_flops - each.cached_flops
    return cost.step_flops - saved[max(full, key=full.__getitem__)]


def _speed_up(estimate: Estimate, steps: int) -> str:
    if estimate.cost is not None:
        low, high = (f"{x:.2f}x" for x in (estimate.cost.min_speedup, estimate.cost.max_speedup))
    else:
        low, high = (
            f"{steps / n:.2f}x" if n else "unbounded"
            for n in (estimate.max_computed_steps, estimate.min_computed_steps)
        )
    return low if low == high else f"{low} to {high}"


def _held(cost: Cost) -> int:
    return cost.parameter_bytes + cost.activation_bytes + cost.cache_bytes


def _range(low: str, high: str) -> str:
    """Both ends, with one unit where they share it."""
    if low == high:
        return low
    number, unit = low.split()
    return f"{number if high.endswith(f' {unit}') else low} to {high}"


def _flops(count: float) -> str:
    return _scaled(count, 1000, _FLOPS)


def _bytes(count: float) -> str:
    return _scaled(count, 1024, _BYTES)


def _scaled(count: float, base: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit; whole numbers below the first prefix."""
    power = 0
    while power < len(units) - 1 and float(f"{count / base**power:.3g}") >= base:
        power += 1
    value = count / base**power
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {units[power]}"
